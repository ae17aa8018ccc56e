// The averages of gradients and of their squares, and the direction that they give: optim/update.py and optim/directions.py.
#pragma once
#include "few_bits.h"

namespace {

// Takes the gradients of a block in, with zeros behind `n`, and writes its directions.
class Directions {
   public:
    virtual void operator()(const float* grad, int64_t begin, int n, float* r) = 0;
};

inline Floats average(Floats old, float beta, Floats value, float rest) {
    return old * splat(beta) + value * splat(rest);
}

// g divided by the root of its mean square; 0/0 is 0. Within +-bound.
inline Floats clamped_ratio(Floats g, Floats square, float correction, float bound) {
    Floats root_mean = root(square * splat(correction));
    Floats r = where(root_mean > splat(0.0f), g / root_mean);
    return smaller(larger(r, splat(-bound)), splat(bound));
}

// What every kind needs of the hyperparameters.
struct Rates {
    const float beta, beta_rest, mu, mu_rest, bound, correction, mean_correction;

    Rates(const Hyper& h, const Scalars& s)
        : beta(static_cast<float>(h.beta)),
          beta_rest(static_cast<float>(1 - h.beta)),
          mu(static_cast<float>(h.momentum)),
          mu_rest(static_cast<float>(1 - h.momentum)),
          bound(static_cast<float>(h.g_bound)),
          correction(s.correction),
          mean_correction(s.momentum_correction) {}
};

// full_direction.
template <bool MOMENTUM>
class FullDirections final : public Directions {
   public:
    FullDirections(const Parameter& p, const Scalars& s, int64_t, int64_t)
        : rates_(*p.hyper, s), square_(static_cast<float*>(p.square)), mean_(static_cast<float*>(p.mean)) {}

    void operator()(const float* grad, int64_t begin, int n, float* r) override {
        float *square = square_ + begin, *mean = MOMENTUM ? mean_ + begin : nullptr;
        if (n == BLOCK) return move(grad, square, mean, r);
        alignas(64) float squares[BLOCK] = {}, means[BLOCK] = {};
        memcpy(squares, square, n * sizeof(float));
        if (MOMENTUM) memcpy(means, mean, n * sizeof(float));
        move(grad, squares, means, r);
        memcpy(square, squares, n * sizeof(float));
        if (MOMENTUM) memcpy(mean, means, n * sizeof(float));
    }

   private:
    void move(const float* grad, float* square, float* mean, float* r) const {
        const Rates rates = rates_;  // what a store cannot change
        for (int i = 0; i < BLOCK; i += LANES) {
            Floats g = load(grad + i);
            const Floats v = average(load(square + i), rates.beta, g * g, rates.beta_rest);
            store(square + i, v);
            if (MOMENTUM) {
                const Floats m = average(load(mean + i), rates.mu, g, rates.mu_rest);
                store(mean + i, m);
                g = average(m * splat(rates.mean_correction), rates.mu, g, rates.mu_rest);
            }
            store(r + i, clamped_ratio(g, v, rates.correction, rates.bound));
        }
    }

    const Rates rates_;
    float *square_, *mean_;
};

// The largest magnitude of a block.
inline float largest_of(const float* x) {
    Floats top = splat(0.0f);
    for (int i = 0; i < BLOCK; i += LANES) top = larger(top, absolute(load(x + i)));
    alignas(64) float lanes[LANES];
    store(lanes, top);
    float result = 0;
    for (float lane : lanes) result = lane > result ? lane : result;
    return result;
}

inline float inverse_of(float scale) {
    const float inverse = 1 / scale;
    return inverse < 0x1.fffffep127f ? inverse : 0x1.fffffep127f;
}

// few_bit_direction.
template <int BITS, bool MOMENTUM>
class FewBitDirections final : public Directions {
   public:
    // Of [begin, end): the words behind belong to other threads, who write them.
    FewBitDirections(const Parameter& p, const Scalars& s, int64_t begin, int64_t end)
        : p_(p),
          end_(end),
          rates_(*p.hyper, s),
          square_(p.hyper->square, s.state_key, begin),
          mean_(p.hyper->mean, s.state_key, (p.count + GROUP - 1) / GROUP * GROUP + begin) {}

    void operator()(const float* grad, int64_t begin, int n, float* r) override {
        const Rates rates = rates_;
        const float largest = largest_of(grad);
        alignas(64) float ahead_room[BLOCK];
        const float* ahead = grad;
        if (MOMENTUM) {
            mean_ahead(rates, grad, begin, n, largest, ahead_room);
            ahead = ahead_room;
        }

        float* scale = p_.square_scale + begin / BLOCK;
        const float old = *scale, unit = largest > old ? largest : old;
        const float a = unit > 0 ? old / unit : 0, b = unit > 0 ? largest / unit : 0;
        *scale = unit * __builtin_sqrtf(a * a * rates.beta + b * b * rates.beta_rest);
        const float ratio = *scale > 0 ? old / *scale : 0, decay = ratio * ratio * rates.beta, inverse = inverse_of(*scale);
        square_.load(p_.square, end_, begin, n);
        alignas(64) float squares[BLOCK];
        for (int i = 0; i < n; i += GROUP) {
            Floats square[VECTORS];
            square_.levels(i, square);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) store(squares + i + v * LANES, square[v]);
        }
        for (int i = 0; i < whole_groups(n); i += LANES) {
            const Floats g = load(grad + i) * splat(inverse), to = MOMENTUM ? load(ahead + i) * splat(inverse) : g;
            const Floats square = average(load(squares + i), decay, g * g, rates.beta_rest);
            store(squares + i, square);
            store(r + i, clamped_ratio(to, square, rates.correction, rates.bound));
        }
        square_.encode(n, squares);
        square_.save(p_.square, begin, n);
    }

   private:
    // Moves the mean, and writes what it will be if the next gradient is like this one.
    void mean_ahead(const Rates& rates, const float* grad, int64_t begin, int n, float largest, float* ahead) {
        float* scale = p_.mean_scale + begin / BLOCK;
        const float old = *scale, now = old * rates.mu + largest * rates.mu_rest;
        *scale = now;
        const float decay = (now > 0 ? old / now : 0) * rates.mu, inverse = inverse_of(now);
        const float lead = now * rates.mean_correction * rates.mu;
        mean_.load(p_.mean, end_, begin, n);
        alignas(64) float means[BLOCK];
        for (int i = 0; i < n; i += GROUP) {
            Floats mean[VECTORS];
            mean_.levels(i, mean);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                const Floats g = load(grad + i + v * LANES);
                mean[v] = average(mean[v], decay, g * splat(inverse), rates.mu_rest);
                store(means + i + v * LANES, mean[v]);
                store(ahead + i + v * LANES, average(mean[v], lead, g, rates.mu_rest));
            }
        }
        mean_.encode(n, means);
        mean_.save(p_.mean, begin, n);
    }

    const Parameter& p_;
    const int64_t end_;
    const Rates rates_;
    Average<BITS, false> square_;
    Average<BITS, true> mean_;
};

}  // namespace
