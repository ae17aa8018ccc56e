// The plain C face of the kernels: pointers and sizes, called through ctypes (see ../library.py and ../native.py).
//
// All but the products gives, bit for bit, what the plain torch code gives that it stands in for. Numbers are float32, each
// operation rounded by itself; tables are built once by the Python side.
#pragma once
#include <stdint.h>

#define LOGNET_API extern "C" __attribute__((visibility("default")))

constexpr int GROUP = 32;   // weights that share the shuffles of a table of bytes, and a draw of random words
constexpr int BLOCK = 128;  // weights worked on together, and the numbers that share a scale in quant/block_format.py

enum Dtype : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, FLOAT64 = 3 };  // steps read the first two

// Packed codes (see quant/bitpack.py): the sizes follow from the number of weights.
struct Planes {
    uint8_t* low;
    uint8_t* high;
    uint8_t* sign;
    int32_t bits;
};

// The constants of quant/ratios.py for a distance of rungs.
struct Spacing {
    float octave, q0, q1, q2, q3, zero;
    int32_t bow0, bow1, shift;
};

// What steps need to know of a ladder. `inverse` has 2^bits numbers; with `by_octaves` they are float32 products of
// exp2(i / 32 - 8), i = 0 .. 255 the upper eight bits of a code of at most 12 bits, and of
// exp2(j / (32 * 2^(bits - 8))), j the others.
struct Ladder {
    const float* inverse;
    Spacing spacing;
    int32_t last, by_octaves;
};

// Averages in few bits: quant/block_format.py. `table` has a number for each code.
struct Levels {
    const float* table;
    Spacing spacing;
    float lowest;
    int32_t last;
};

// The hyperparameters of a group, as optim/madam.py has them.
struct Hyper {
    double lr, p_scale, g_bound, beta, momentum, affine, warmup;
    uint64_t seed;
    int32_t sign_crossing, stochastic, bias_correction, maximize, state_bits, padding;
    Levels square, mean;  // of averages in few bits
};

// What it takes to encode floats: the numbers of LogFormat.encode in quant/log_format.py.
struct Encoding {
    const void* values;  // finite
    Dtype dtype;
    double scale;
    const double* rungs;  // of the unit ladder, from 1 down; then a negative number
    Spacing spacing;
    double least, most;
    const double* drops;  // for the upper byte of 16 random bits, then for the lower one; null: `least` for all
    uint64_t key, coin_key;
    int32_t last;
};

// One parameter: a LogTensor (planes) or floats (weight), its gradient and its state.
struct Parameter {
    const void* grad;
    void* weight;
    Planes planes;
    const Ladder* ladder;
    double base_precision;
    const float* scale;
    const uint8_t* keep;  // null, or one bit for every `keep_group` weights
    int64_t keep_group;
    float* step;
    const double* sigma;
    int64_t* counts;
    void* square;
    float* square_scale;
    void* mean;  // null without momentum
    float* mean_scale;
    int64_t count;
    const Hyper* hyper;
    int64_t index;
    int32_t grad_dtype, weight_dtype;
};

// The numbers of one parameter in one step: `Scalars` of optim/parameter_step.py.
struct Scalars {
    float lr, relative, absolute, correction, momentum_correction, sigma_star;
    uint64_t key, state_key;
};

// What one instruction set offers. Windows are [begin, end) in weights, `begin` a multiple of 8 (in `step` of BLOCK);
// `count` is that of the whole tensor, so that no byte behind the planes is touched.
struct Kernels {
    void (*decode)(const Planes& planes, const float* rungs, float scale, int64_t count, int64_t begin, int64_t end,
                   float* out);
    void (*unpack)(const uint8_t* stream, int width, int64_t count, int64_t begin, int64_t end, uint8_t* out);
    void (*unpack_codes)(const Planes& planes, int64_t count, int64_t begin, int64_t end, int32_t* out);
    void (*product)(const Planes& planes, const float* rungs, float scale, bool octaves, int64_t rows, int64_t columns,
                    const float* x, int64_t batch, float* y, int threads);  // all of it, on its own threads
    void (*pack)(const void* values, int size, int byte, int width, int64_t begin, int64_t end, uint8_t* stream);
    void (*encode)(const Encoding& encoding, const Planes& planes, int64_t begin, int64_t end);
    bool (*all_below)(const void* grad, Dtype dtype, float limit, int64_t begin, int64_t end);
    void (*step)(const Parameter& parameter, const Scalars& scalars, int64_t begin, int64_t end, int64_t* counts);
};

const Kernels* kernels_portable();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
