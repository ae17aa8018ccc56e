// The structures that Python passes to Madam's step, and the kernels of the step.
#pragma once
#include "lognet.h"

// The ladder of a LogTensor. `inverse_rungs` is the table of quant/ratios.py, of 2^bits numbers. With `by_octaves` they are
// float32 products of exp2(i / 32 - 8), i = 0 .. 255 the upper eight bits of a code of at most 12 bits, and of
// exp2(j / (32 * 2^(bits - 8))), j the other bits.
struct Ladder {
    const float* inverse_rungs;
    Spacing spacing;
    int32_t last, by_octaves;
};

// The hyperparameters of a group: those of optim/madam.py.
struct Hyper {
    double lr, p_scale, g_bound, beta, momentum, affine, warmup;
    uint64_t seed;
    int32_t sign_crossing, stochastic, bias_correction, maximize, state_bits, padding;
    Levels square, mean;  // the formats of the averages if state_bits < 32
};

// One parameter, a LogTensor (`planes`) or floats (`weight`), with its gradient and its state.
struct Parameter {
    const void* grad;
    void* weight;
    Planes planes;
    const Ladder* ladder;
    double base_precision;
    const float* scale;
    const uint8_t* keep;  // null, or one bit for every `keep_group` weights: 0 for pruned ones
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

// The numbers of one parameter in one step: `Scalars` in Python.
struct Scalars {
    float lr, relative, absolute, correction, momentum_correction, sigma_star;
    uint64_t key, state_key;
};

// The kernels of one instruction set. They work on the weights [begin, end); `begin` is a multiple of 8, and of BLOCK in `step`.
struct StepKernels {
    bool (*all_below)(const void* grad, Dtype dtype, float limit, int64_t begin, int64_t end);
    void (*step)(const Parameter& parameter, const Scalars& scalars, int64_t begin, int64_t end, int64_t* counts);
};

extern const StepKernels step_kernels_portable, step_kernels_avx2, step_kernels_avx512;
