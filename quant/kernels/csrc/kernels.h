// The kernels that exist for every instruction set, and the choice of the instruction set.
#pragma once
#include "lognet.h"

// The kernels of one instruction set. They work on the weights [begin, end), `begin` a multiple of 8. `count` is the number
// of weights of the whole tensor, so that no byte after the planes is touched.
struct Kernels {
    void (*decode)(const Planes& planes, const float* rungs, float scale, int64_t count, int64_t begin, int64_t end,
                   float* out);
    void (*unpack)(const uint8_t* stream, int width, int64_t count, int64_t begin, int64_t end, uint8_t* out);
    void (*unpack_codes)(const Planes& planes, int64_t count, int64_t begin, int64_t end, int32_t* out);
    void (*product)(const Planes& planes, const float* rungs, float scale, bool octaves, int64_t rows, int64_t columns,
                    const float* x, int64_t batch, float* y, int threads);  // the whole product, on up to `threads` threads
    void (*pack)(const void* values, int size, int byte, int width, int64_t begin, int64_t end, uint8_t* stream);
    void (*encode)(const Encoding& encoding, const Planes& planes, int64_t begin, int64_t end);
};

extern const Kernels kernels_portable, kernels_avx2, kernels_avx512;

// The instruction set in use: 0 portable, 1 AVX2, 2 AVX-512. It is an index into the array that LOGNET_LEVELS makes.
int chosen_level();

#if defined(LOGNET_PORTABLE_ONLY)
#define LOGNET_LEVELS(table) {&table##_portable}
#else
#define LOGNET_LEVELS(table) {&table##_portable, &table##_avx2, &table##_avx512}
#endif
