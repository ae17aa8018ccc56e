// Averages in few bits: quant/block_format.py, and how optim/few_bits.py updates them. A block shares a scale.
#pragma once
#include "averages.h"
#include "codes.h"
#include "ladder.h"
#include "random.h"
#include "rounding.h"
#include "signs.h"

namespace {

// Codes of `bits` bits from number `begin` on, as integers; 16 bits are stored as signed ones, 2^15 below.
inline void load_state(const void* codes, int bits, int64_t count, int64_t begin, int n, int32_t* k) {
    if (bits == 16) {
        const int16_t* at = static_cast<const int16_t*>(codes) + begin;
        for (int i = 0; i < n; ++i) k[i] = at[i] + 32768;
    } else {
        alignas(64) uint8_t bytes[BLOCK] = {};
        unpack_bytes(static_cast<const uint8_t*>(codes), bits, count, begin, n, bytes);
        for (int i = 0; i < n; i += LANES) store(k + i, widen(bytes + i));
    }
}

inline void save_state(void* codes, int bits, int64_t begin, int n, const int32_t* k) {
    if (bits == 16) {
        int16_t* at = static_cast<int16_t*>(codes) + begin;
        for (int i = 0; i < n; ++i) at[i] = static_cast<int16_t>(k[i] - 32768);
    } else {
        alignas(64) uint8_t bytes[BLOCK] = {};
        for (int i = 0; i < n; i += LANES) narrow(bytes + i, load(k + i));
        memset(bytes + n, 0, BLOCK - n);
        pack_bytes(bytes, bits, begin, n, static_cast<uint8_t*>(codes));
    }
}

// The largest magnitude; lanes behind n hold 0.
inline float largest(const float* x, int n) {
    Floats top = splat(0.0f);
    for (int i = 0; i < n; i += LANES) top = larger(top, absolute(load(x + i)));
    alignas(64) float lanes[LANES];
    store(lanes, top);
    float result = 0;
    for (float lane : lanes) result = lane > result ? lane : result;
    return result;
}

// Rounds a block of averages, in place of codes and scale. Squares that are not zero stay so.
template <class Ladder, bool SIGNED>
float encode_block(const Rungs& rungs, int bits, uint64_t key, int shift, const float* x, int64_t begin, int n,
                   void* codes) {
    const float scale = largest(x, n);
    const Floats zero = splat(0.0f), least = splat(rungs.values[rungs.last - 1]);
    const Ladder ladder(rungs);
    const Rounder<Ladder> rounder(ladder, rungs);
    RandomWords words(key, begin);
    alignas(64) int32_t k[BLOCK];
    alignas(64) float shares[BLOCK];
    for (int i = 0; i < n; i += LANES) {
        Floats y = zero;
        if (scale > 0) y = absolute(load(x + i)) / splat(scale);
        if (!SIGNED) y = where(y > zero, larger(y, least));
        store(shares + i, y);
        store(k + i, rounder.guess(y));
    }
    for (int i = 0; i < n; i += LANES) {
        Ints word = words.draw();
        Ints code = rounder.round(load(shares + i), load(k + i), uniform16(shift ? shift_right<16>(word) : word));
        if (SIGNED) code = code + (minus_one(load(x + i) < zero) & splat(1 << (bits - 1)));
        store(k + i, code);
    }
    save_state(codes, bits, begin, n, k);
    return scale;
}

// The direction of a block; its averages move on.
template <class Ladder, bool MOMENTUM>
void few_bit_directions(const Parameter& p, const Scalars& scalars, const float* grad, int64_t begin, int n, float* r) {
    const Hyper& hyper = *p.hyper;
    const int bits = hyper.state_bits;
    const float beta = static_cast<float>(hyper.beta), beta_rest = static_cast<float>(1 - hyper.beta);
    const float mu = static_cast<float>(hyper.momentum), mu_rest = static_cast<float>(1 - hyper.momentum);
    const float bound = static_cast<float>(hyper.g_bound);
    alignas(64) int32_t k[BLOCK] = {};
    alignas(64) float average_of[BLOCK] = {}, ahead[BLOCK] = {};

    if (MOMENTUM) {
        const float scale = p.mean_scale[begin / BLOCK];
        const Rungs& rungs = hyper.mean_rungs;
        const Ladder ladder(rungs);
        load_state(p.mean, bits, p.count, begin, n, k);
        for (int i = 0; i < n; i += LANES) {
            Ints code = load(k + i), sign = minus_one(code > splat(rungs.last)) & splat(INT32_MIN);
            Floats old = flip(ladder[code & splat(rungs.last)] * splat(scale), sign);
            Floats g = load(grad + i), m = average(old, mu, g, mu_rest);
            store(average_of + i, m);
            store(ahead + i, average(m * splat(scalars.momentum_correction), mu, g, mu_rest));
        }
        memset(average_of + n, 0, (BLOCK - n) * sizeof(float));
        p.mean_scale[begin / BLOCK] =
            encode_block<Ladder, true>(rungs, bits, scalars.state_key, 0, average_of, begin, n, p.mean);
    }

    const float before = p.square_scale[begin / BLOCK], largest_now = largest(grad, n);
    const float unit = before > largest_now ? before : largest_now;
    if (unit == 0) {  // nothing there, and nothing was
        for (int i = 0; i < n; i += LANES) store(average_of + i, splat(0.0f)), store(r + i, splat(0.0f));
    } else {
        const float ratio = before / unit, decay = ratio * ratio * beta;
        const Ladder ladder(hyper.square_rungs);
        load_state(p.square, bits, p.count, begin, n, k);
        for (int i = 0; i < n; i += LANES) {
            Floats g = load(grad + i) / splat(unit);
            Floats v = average(ladder[load(k + i)], decay, g * g, beta_rest);
            store(average_of + i, v);
            if (MOMENTUM) g = load(ahead + i) / splat(unit);
            store(r + i, clamped_ratio(g, v, scalars.correction, bound));
        }
        memset(average_of + n, 0, (BLOCK - n) * sizeof(float));
    }
    const float top = encode_block<Ladder, false>(hyper.square_rungs, bits, scalars.state_key, MOMENTUM ? 16 : 0, average_of,
                                          begin, n, p.square);
    p.square_scale[begin / BLOCK] = unit * __builtin_sqrtf(top);
}

}  // namespace
