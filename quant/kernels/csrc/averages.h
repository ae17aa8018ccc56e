// The averages of gradients and of their squares, and the direction that they give: optim/update.py.
#pragma once
#include "lognet.h"

namespace {

inline Floats average(Floats old, float beta, Floats value, float rest) {
    return old * splat(beta) + value * splat(rest);
}

// g divided by the root of its mean square; 0/0 is 0. Within +-bound.
inline Floats clamped_ratio(Floats g, Floats square, float correction, float bound) {
    Floats root_mean = root(square * splat(correction));
    Floats r = where(root_mean > splat(0.0f), g / root_mean);
    return smaller(larger(r, splat(-bound)), splat(bound));
}

// State of 32 bits: updates `square` (and `mean`, or null) in place, writes r.
template <bool MOMENTUM>
void directions(const Hyper& hyper, const Scalars& scalars, const float* grad, float* square, float* mean, float* r,
                int n) {
    const float beta = static_cast<float>(hyper.beta), beta_rest = static_cast<float>(1 - hyper.beta);
    const float mu = static_cast<float>(hyper.momentum), mu_rest = static_cast<float>(1 - hyper.momentum);
    const float bound = static_cast<float>(hyper.g_bound);
    for (int i = 0; i < n; i += LANES) {
        Floats g = load(grad + i);
        Floats v = average(load(square + i), beta, g * g, beta_rest);
        store(square + i, v);
        if (MOMENTUM) {
            Floats m = average(load(mean + i), mu, g, mu_rest);
            store(mean + i, m);
            g = average(m * splat(scalars.momentum_correction), mu, g, mu_rest);
        }
        store(r + i, clamped_ratio(g, v, scalars.correction, bound));
    }
}

}  // namespace
