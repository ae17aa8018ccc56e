// The plain C face of the kernels: pointers and sizes, called through ctypes (see ../library.py and ../native.py).
//
// Everything here gives, bit for bit, what the plain torch code gives that it stands in for. Numbers are float32, each
// operation rounded by itself; tables are built once by the Python side.
#pragma once
#include <stdint.h>

#define LOGNET_API extern "C" __attribute__((visibility("default")))

// Packed codes (see quant/bitpack.py). `low` and `high` may be null where unused; `bytes` say how far may be read.
struct Planes {
    uint8_t* low;
    uint8_t* high;
    uint8_t* sign;
    int32_t bits;
};

// What one instruction set offers. Windows are [begin, end) in weights, `begin` a multiple of 8; `count` is that of
// the whole tensor, so that no byte behind the planes is touched.
struct Kernels {
    void (*decode)(const Planes& planes, const float* rungs, float scale, int64_t count, int64_t begin, int64_t end,
                   float* out);
    void (*unpack)(const uint8_t* stream, int width, int64_t count, int64_t begin, int64_t end, uint8_t* out);
    void (*unpack_codes)(const Planes& planes, int64_t count, int64_t begin, int64_t end, int32_t* out);
    void (*product)(const Planes& planes, const float* rungs, float scale, bool octaves, int64_t rows, int64_t columns,
                    const float* x, int64_t batch, int64_t begin, int64_t end, float* y);  // windows of rows
};

const Kernels* kernels_portable();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
