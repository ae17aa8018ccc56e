// What Python tells the kernels of Madam's step (see quant/kernels/steps.py), and the kernels.
#pragma once
#include "lognet.h"

// What steps need to know of a ladder. `inverse` has 2^bits numbers; with `by_octaves` they are float32 products of
// exp2(i / 32 - 8), i = 0 .. 255 the upper eight bits of a code of at most 12 bits, and of
// exp2(j / (32 * 2^(bits - 8))), j the others.
struct Ladder {
    const float* inverse;
    Spacing spacing;
    int32_t last, by_octaves;
};

// The hyperparameters of a group, as optim/madam.py has them.
struct Hyper {
    double lr, p_scale, g_bound, beta, momentum, affine, warmup;
    uint64_t seed;
    int32_t sign_crossing, stochastic, bias_correction, maximize, state_bits, padding;
    Levels square, mean;  // of averages in few bits
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

// The numbers of one parameter in one step: `Scalars` of optim/plan.py.
struct Scalars {
    float lr, relative, absolute, correction, momentum_correction, sigma_star;
    uint64_t key, state_key;
};

// What one instruction set offers. Windows are [begin, end) in weights, `begin` a multiple of 8, and in `step` of BLOCK.
struct StepKernels {
    bool (*all_below)(const void* grad, Dtype dtype, float limit, int64_t begin, int64_t end);
    void (*step)(const Parameter& parameter, const Scalars& scalars, int64_t begin, int64_t end, int64_t* counts);
};

extern const StepKernels step_kernels_portable, step_kernels_avx2, step_kernels_avx512;
