// Rungs as fixed-point places: quant/ratios.py.
#pragma once
#include "lognet.h"
#include "simd/simd.h"

namespace {

constexpr int VECTORS = GROUP / LANES, WORDS = VECTORS / 2;  // of a group of weights, and of its random words

inline int whole_groups(int n) { return (n + GROUP - 1) / GROUP * GROUP; }

class Places {
   public:
    explicit Places(const Spacing& s)
        : octave_(splat(s.octave)), q0_(splat(s.q0)), q1_(splat(s.q1)), q2_(splat(s.q2)), q3_(splat(s.q3)), s_(s) {}

    // How far below the number 1 a number lies, which is not negative.
    Ints operator()(Floats x) const { return (*this)(x, bulge(x)); }

    // The same in two parts: the polynomial, and what is left to do with it.
    Floats bulge(Floats x) const {
        const Floats m = to_floats(bits_of(x) & splat(0x007FFFFF));
        return m * (splat(0x1p23f) - m) * (((m * q3_ + q2_) * m + q1_) * m + q0_);
    }
    Ints operator()(Floats x, Floats bulge) const {
        return to_nearest(to_floats(bits_of(x) - splat(0x3F800000)) * octave_ + bulge);
    }

    // What to add to places for random halves, both of each lane.
    Ints lift(Ints words) const {
        const Ints bend = subtract16(splat16(s_.bow0), high_product16(words, splat16(s_.bow1)));
        const Ints arc = high_product16(words, words ^ splat(-1));
        return shift_right16(add16(words, high_product16(arc, bend)), 16 - s_.shift);
    }

    Ints rungs(Ints places) const { return shift_right_signed(places, s_.shift); }

   private:
    Floats octave_, q0_, q1_, q2_, q3_;
    Spacing s_;
};

// The halves of words: of a group, the first vectors have the lower ones of its words.
template <int HALF>
inline Ints half(Ints words) {
    return HALF ? shift_right<16>(words) : words & splat(0xFFFF);
}

}  // namespace
