// Moving weights: the affine step of optim/affine.py, and the paper's step on codes of optim/update.py.
#pragma once
#include "ladder/codes.h"
#include "ladder/positions.h"
#include "ladder/random.h"
#include "ladder/tables.h"
#include "madam.h"
#include "simd/simd.h"

namespace {

struct Counts {
    int64_t tried = 0, moved = 0, crossed = 0;
};

// Flips the signs of a group where `crosses` has a bit.
inline void flip_signs(uint8_t* signs, uint32_t crosses) {
    uint32_t word;
    memcpy(&word, signs, 4);
    word ^= crosses;
    memcpy(signs, &word, 4);
}

// affine_codes, a block at a time. Weights with r = 0 stay.
//
// It runs over the block in several short loops. A processor looks ahead over about sixty waiting vector operations. These are
// many iterations of a loop that is a chain of ten operations, but only one or two of a chain of thirty. Numbers that go from one
// iteration to the next are local variables, because a sum in memory would make each iteration wait for the last.
template <class InverseRungs, bool CROSSING, bool STOCHASTIC>
class AffineMove {
   public:
    AffineMove(const Parameter& p, const Scalars& s, int64_t begin)
        : inverse_rungs_(p.ladder->inverse_rungs, p.planes.bits),
          words_(s.key, begin / 2),
          positions_(p.ladder->spacing),
          zero_(p.ladder->spacing.zero),
          last_(p.ladder->last),
          relative_(splat(s.relative)),
          absolute_(splat(s.absolute)),
          tried_(splat(0)) {
        const Ints nearest = low16(positions_.offsets(splat16(1 << 15)));
        for (int i = 0; i < BLOCK; i += LANES) store(offsets_ + i, nearest), store(zeros_ + i, splat(0.0f));
    }

    void operator()(const float* r, int n, uint8_t* low, uint8_t* high, uint8_t* signs) {
        n = whole_groups(n);
        if (STOCHASTIC) draw(n);
        inverse_rungs_(low, high, n, ratios_);
        Ints tried = tried_;
        for (int i = 0; i < n; i += GROUP) to_ratios(r + i, i, signs + i / 8, tried);
        tried_ = tried;
        for (int i = 0; i < n; i += LANES) store(corrections_ + i, positions_.correction(load(ratios_ + i)));
        int moved = 0, crossed = 0;
        for (int i = 0; i < n; i += GROUP) {
            moved += __builtin_popcount(to_codes(i, low + i, high ? high + i : nullptr, signs + i / 8));
            crossed += __builtin_popcount(crosses_[i / GROUP]);
        }
        counts_.moved += moved, counts_.crossed += crossed;
    }

    Counts counts() const {
        Counts counts = counts_;
        alignas(64) int32_t lanes[LANES];
        store(lanes, tried_);
        for (int32_t lane : lanes) counts.tried += lane;
        return counts;
    }

   private:
    // From random bits, for each weight: the offset of its position, and the ratio (in units of the inverse rung) below which its
    // sign changes.
    void draw(int n) {
        const Floats zero = splat(zero_ * 0x1p-16f);
        RandomWords words = words_;
        for (int i = 0; i < n; i += GROUP) {
            for (int j = i; j < i + GROUP / 2; j += LANES) {
                const Ints word = words.draw(), offsets = positions_.offsets(word);
                store(offsets_ + j, low16(offsets));
                store(offsets_ + j + GROUP / 2, high16(offsets));
                store(zeros_ + j, to_floats(shift_left<16>(word)) * zero);
                store(zeros_ + j + GROUP / 2, to_floats(word & splat(static_cast<int32_t>(0xFFFF0000u))) * zero);
            }
        }
        words_ = words;
    }

    // Replaces the inverse rungs in `ratios_` by the ratios of a group.
    void to_ratios(const float* r, int at, const uint8_t* signs, Ints& tried) {
        uint32_t crosses = 0;
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            const Floats inverse = load(ratios_ + at + v * LANES), step = load(r + v * LANES);
            tried = count(tried, step != splat(0.0f));
            Floats ratio = splat(1.0f) - (inverse * absolute_ + relative_) * with_signs(step, signs, v * LANES);
            if (CROSSING) crosses |= flags(ratio < load(zeros_ + at + v * LANES) * inverse) << (v * LANES);
            store(ratios_ + at + v * LANES, CROSSING ? absolute(ratio) : larger(ratio, splat(0.0f)));
        }
        crosses_[at / GROUP] = crosses;
    }

    // Moves the codes and signs of a group. Bit i is set if weight i moved.
    uint32_t to_codes(int at, uint8_t* low, uint8_t* high, uint8_t* signs) const {
        Ints k[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            const Ints old = load_codes(low + v * LANES, high ? high + v * LANES : nullptr);
            const int i = at + v * LANES;
            k[v] = old + positions_.rungs(positions_(load(ratios_ + i), load(corrections_ + i)) + load(offsets_ + i));
        }
        alignas(32) uint8_t new_low[GROUP], new_high[GROUP];
        store_codes(k, last_, new_low, high ? new_high : nullptr);
        const uint32_t crosses = crosses_[at / GROUP];
        uint32_t stays = equal_bytes(low, new_low) & ~crosses;
        memcpy(low, new_low, GROUP);
        if (high) {
            stays &= equal_bytes(high, new_high);
            memcpy(high, new_high, GROUP);
        }
        flip_signs(signs, crosses);
        return ~stays;
    }

    InverseRungs inverse_rungs_;
    RandomWords words_;
    const Positions positions_;
    const float zero_;
    const int last_;
    const Floats relative_, absolute_;
    alignas(64) float ratios_[BLOCK], corrections_[BLOCK], zeros_[BLOCK];
    alignas(64) int32_t offsets_[BLOCK];
    uint32_t crosses_[BLOCK / GROUP];
    Ints tried_;  // by lanes
    Counts counts_;
};

// step_codes, a block at a time.
template <bool CROSSING, bool STOCHASTIC>
class MultiplicativeMove {
   public:
    MultiplicativeMove(const Parameter& p, const Scalars& s, int64_t begin)
        : words_(s.key, begin / 2), rungs_(splat(s.lr)), last_(p.ladder->last) {}

    void operator()(const float* r, int n, uint8_t* low, uint8_t* high, uint8_t* signs) {
        Counts counts = counts_;
        for (int i = 0; i < n; i += GROUP) move(r + i, low + i, high ? high + i : nullptr, signs + i / 8, counts);
        counts_ = counts;
    }

    Counts counts() const { return counts_; }

   private:
    void move(const float* r, uint8_t* low, uint8_t* high, uint8_t* signs, Counts& counts) {
        const Floats limit = splat(static_cast<float>(last_ + 1));
        const Ints last = splat(last_), zero = splat(0);
        Ints words[WORDS], k[VECTORS];
        if (STOCHASTIC) {
            for (Ints& word : words) word = words_.draw();
        }
        uint32_t crosses = 0;
        for (int v = 0; v < VECTORS; ++v) {
            const Ints old = load_codes(low + v * LANES, high ? high + v * LANES : nullptr);
            const Floats step = load(r + v * LANES), exact = step * rungs_;
            Floats move = nearest_even(exact);
            if (STOCHASTIC) {
                const Floats size = absolute(exact), whole = whole_part(size);
                move = flip(whole + where(uniform(bits16(words, v)) < size - whole, splat(1.0f)), sign_bit(exact));
            }
            const Ints moves = to_nearest(smaller(larger(move, splat(0.0f) - limit), limit));
            const Mask tried = step != splat(0.0f);
            counts.tried += __builtin_popcount(flags(tried));
            counts.moved += __builtin_popcount(flags(tried)) - __builtin_popcount(flags(tried & (moves == zero)));
            k[v] = old + choose(is_set(load_signs(signs, v * LANES)), zero - moves, moves);
            if (CROSSING) crosses |= flags(k[v] > last) << (v * LANES);
        }
        store_codes(k, last_, low, high);
        flip_signs(signs, crosses);
        counts.crossed += __builtin_popcount(crosses);
    }

    RandomWords words_;
    const Floats rungs_;
    const int last_;
    Counts counts_;
};

// affine_floats, in place.
template <bool CROSSING>
void affine_floats(const Scalars& scalars, const float* r, int n, float* weight) {
    const Floats sigma_star = splat(scalars.sigma_star), zero = splat(0.0f);
    const Floats lowest = sigma_star / splat(256.0f);
    for (int i = 0; i < n; i += LANES) {
        Floats w = load(weight + i), magnitude = absolute(w), bound = larger(magnitude, sigma_star);
        Floats target = w - (magnitude * splat(scalars.relative) + splat(scalars.absolute)) * load(r + i);
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
