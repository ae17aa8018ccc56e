// Moving weights: the affine step of optim/affine.py and the paper's on codes, of optim/update.py.
#pragma once
#include "codes.h"
#include "ladder.h"
#include "random.h"
#include "rounding.h"
#include "signs.h"

namespace {

struct Counts {
    int64_t tried = 0, stayed = 0, crossed = 0;

    void add(Mask tries, Mask stays, Mask crosses) {
        tried += __builtin_popcount(flags(tries));
        stayed += __builtin_popcount(flags(stays));
        crossed += __builtin_popcount(flags(crosses));
    }
};

// A block of codes, taken apart.
struct Codes {
    CodeBytes bytes;
    alignas(64) uint8_t signs[BLOCK / 8] = {};
    bool high;

    Ints rung(int i) const { return high ? widen(bytes.low + i) | shift_left<8>(widen(bytes.high + i)) : widen(bytes.low + i); }

    void set(int i, Ints k, Ints sign) {
        narrow(bytes.low + i, k);
        if (high) narrow(bytes.high + i, shift_right<8>(k));
        store_signs(signs, i, sign);
    }
};

inline Floats affine_target(Floats weight, Floats magnitude, Floats r, const Scalars& s) {
    return weight - (magnitude * splat(s.relative) + splat(s.absolute)) * r;
}

// affine_codes: in units of the scale. Lanes behind `n` hold r = 0 and stay.
template <class Ladder, bool CROSSING, bool STOCHASTIC>
void affine_codes(const Rungs& rungs, const Scalars& scalars, const float* r, int64_t first, int n, Codes& codes,
                  Counts& total) {
    const Ladder ladder(rungs);
    const Rounder<Ladder> rounder(ladder, rungs);
    const Scalars s = scalars;  // what a store of bytes cannot change
    Counts counts = total;
    const Floats lowest = splat(rungs.values[rungs.last]), twice = splat(2 * rungs.values[rungs.last]);
    RandomWords words(scalars.key, first);
    alignas(64) float targets[BLOCK], uniforms[BLOCK];
    alignas(64) int32_t guesses[BLOCK];
    for (int i = 0; i < n; i += LANES) {
        Ints sign = load_signs(codes.signs, i);
        Floats magnitude = ladder[codes.rung(i)];
        Floats target = affine_target(flip(magnitude, sign), magnitude, load(r + i), s);
        if (!CROSSING) target = flip(larger(flip(target, sign), splat(0.0f)), sign);
        store(targets + i, target);
        if (STOCHASTIC) store(uniforms + i, uniform24(words.draw()));
    }
    for (int i = 0; i < n; i += LANES) {
        Floats size = larger(smaller(absolute(load(targets + i)), splat(1.0f)), lowest);
        store(guesses + i, rounder.guess(size));
    }
    for (int i = 0; i < n; i += LANES) {
        Floats target = load(targets + i), size = smaller(absolute(target), splat(1.0f));
        Floats u = STOCHASTIC ? load(uniforms + i) : splat(0.5f);
        Ints k = rounder.round(larger(size, lowest), load(guesses + i), u);
        Ints old = codes.rung(i), old_sign = load_signs(codes.signs, i), sign = old_sign;
        if (CROSSING) {
            Mask flips = (size < lowest) & (u * twice > size + lowest);
            sign = sign_bit(target) ^ (minus_one(flips) & splat(INT32_MIN));
        }
        Mask tried = load(r + i) != splat(0.0f);
        counts.add(tried, tried & (k == old) & (sign == old_sign), is_set(sign ^ old_sign));
        codes.set(i, k, sign);
    }
    total = counts;
}

// step_codes: whole rungs up and down.
template <bool CROSSING, bool STOCHASTIC>
void multiplicative_codes(const Rungs& rungs, const Scalars& scalars, const float* r, int64_t first, int n,
                          Codes& codes, Counts& counts) {
    const Floats limit = splat(static_cast<float>(rungs.last + 1));
    const Ints last = splat(rungs.last), zero = splat(0);
    RandomWords words(scalars.key, first);
    for (int i = 0; i < n; i += LANES) {
        Ints old = codes.rung(i), old_sign = load_signs(codes.signs, i);
        Floats step = load(r + i), exact = step * splat(scalars.lr), move;
        if (STOCHASTIC) {
            Floats size = absolute(exact), whole = whole_part(size);
            Mask more = uniform24(words.draw()) < size - whole;
            move = flip(whole + where(more, splat(1.0f)), sign_bit(exact));
        } else {
            move = nearest_even(exact);
        }
        Ints moves = to_nearest(smaller(larger(move, splat(0.0f) - limit), limit));
        Ints down = old + choose(is_set(old_sign), zero - moves, moves);
        Mask tried = step != splat(0.0f), crosses = (down > last) & (zero == (CROSSING ? zero : last));
        counts.add(tried, tried & (moves == zero), crosses);
        codes.set(i, smaller(larger(down, zero), last), old_sign ^ (minus_one(crosses) & splat(INT32_MIN)));
    }
}

// affine_floats, in place.
template <bool CROSSING>
void affine_floats(const Scalars& scalars, const float* r, int n, float* weight) {
    const Floats star = splat(scalars.sigma_star), zero = splat(0.0f);
    const Floats lowest = splat(scalars.sigma_star) / splat(256.0f);
    for (int i = 0; i < n; i += LANES) {
        Floats w = load(weight + i), magnitude = absolute(w), bound = larger(magnitude, star);
        Floats target = affine_target(w, magnitude, load(r + i), scalars);
        if (CROSSING) {
            store(weight + i, smaller(larger(target, zero - bound), bound));
        } else {
            Mask is_zero = w == zero;
            Ints side = sign_bit(choose(is_zero, target, w));
            Floats floor = choose(is_zero, lowest, smaller(magnitude, lowest));
            Floats moved = flip(smaller(larger(flip(target, side), floor), bound), side);
            store(weight + i, choose(target == w, w, moved));
        }
    }
}

}  // namespace
