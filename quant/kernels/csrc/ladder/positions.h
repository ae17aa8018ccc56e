// Positions between rungs as fixed-point numbers: `rungs_for_ratio` of quant/ratios.py.
#pragma once
#include "lognet.h"
#include "simd/simd.h"

namespace {

constexpr int VECTORS = GROUP / LANES;  // of the weights of a group
constexpr int WORDS = VECTORS / 2;      // vectors of the random words of a group, which have 16 bits for each weight

inline int whole_groups(int n) { return (n + GROUP - 1) / GROUP * GROUP; }

// The lower and the upper 16 bits of words. The lower ones belong to the first half of a group, the upper ones to the second.
inline Ints low16(Ints words) { return words & splat(0xFFFF); }
inline Ints high16(Ints words) { return shift_right<16>(words); }

// The 16 bits that belong to vector v of a group.
inline Ints bits16(const Ints* words, int v) { return v < WORDS ? low16(words[v]) : high16(words[v - WORDS]); }

class Positions {
   public:
    explicit Positions(const Spacing& s)
        : octave_(splat(s.octave)), q0_(splat(s.q0)), q1_(splat(s.q1)), q2_(splat(s.q2)), q3_(splat(s.q3)), s_(s) {}

    // The distance from 1 down to a number that is not negative, in rungs times 2^shift.
    Ints operator()(Floats x) const { return (*this)(x, correction(x)); }

    // The same in two parts: the polynomial that corrects the bits of a float as its logarithm, and the rest.
    Floats correction(Floats x) const {
        const Floats m = to_floats(bits_of(x) & splat(0x007FFFFF));
        return m * (splat(0x1p23f) - m) * (((m * q3_ + q2_) * m + q1_) * m + q0_);
    }
    Ints operator()(Floats x, Floats correction) const {
        return to_nearest(to_floats(bits_of(x) - splat(0x3F800000)) * octave_ + correction);
    }

    // The offsets that round positions at random, from 16 random bits each; two in each lane.
    Ints offsets(Ints random16) const {
        const Ints coefficient = subtract16(splat16(s_.curve0), high_product16(random16, splat16(s_.curve1)));
        const Ints u_times_rest = high_product16(random16, random16 ^ splat(-1));
        return shift_right16(add16(random16, high_product16(u_times_rest, coefficient)), 16 - s_.shift);
    }

    Ints rungs(Ints positions) const { return shift_right_signed(positions, s_.shift); }

   private:
    Floats octave_, q0_, q1_, q2_, q3_;
    Spacing s_;
};

}  // namespace
