// Rounding onto a table of rungs so that the expected value is the value itself: quant/rounding.py.
//
// A guess of the nearest rung that is less than half a rung off is enough: the number is then compared with that rung,
// which tells the neighbour on its other side, and between these two the table's own values decide.
#pragma once

namespace {

template <class Ladder>
struct Rounder {
    const Ladder& rungs;
    Floats factor, last;  // of the guess: rungs a doubling, negative, and the last rung
    Ints last_rung;

    Rounder(const Ladder& ladder, const Rungs& table)
        : rungs(ladder),
          factor(splat(-0.693147181f / table.base_precision)),
          last(splat(static_cast<float>(table.last))),
          last_rung(splat(table.last)) {}

    // log2 for positive normal y, to 2e-6, or 0.006 where rungs are far apart.
    static Floats log2_of(Floats y) {
        Ints bits = bits_of(y);
        Floats exponent = to_floats(shift_right<23>(bits) - splat(127));
        Floats m = floats_of((bits & splat(0x007FFFFF)) | splat(0x3F800000));
        if (Ladder::COARSE) {
            return exponent + fused(fused(splat(-0.33975181f), m, splat(2.00936484f)), m, splat(-1.66403007f));
        }
        Floats p = fused(splat(-0.0251232032f), m, splat(0.270037472f));
        p = fused(p, m, splat(-1.24796247f));
        p = fused(p, m, splat(3.24946666f));
        p = fused(p, m, splat(-5.30170918f));
        p = fused(p, m, splat(6.08989573f));
        p = fused(p, m, splat(-3.03460288f));
        return exponent + p;
    }

    // Rounding is in two steps, for loops of their own: a processor looks ahead over several turns of a short loop.

    // The rung nearest to y, from 0 to 1, or a neighbour of that.
    Ints guess(Floats y) const {
        return to_nearest(smaller(larger(log2_of(y) * factor, splat(0.0f)), last));
    }

    // k for y, its guess, and u from 0 to 1; see round_to_rungs.
    Ints round(Floats y, Ints guess, Floats u) const {
        Floats rung = rungs[guess];
        Mask over = y > rung;
        Ints up = minus_one(over);
        Ints neighbour = smaller(guess + splat(1) + shift_left<1>(up), last_rung);  // guess - 1 or guess + 1
        Floats other = rungs[neighbour];
        Floats above = larger(rung, other), below = smaller(rung, other);
        return guess + up - minus_one(y - below < u * (above - below));
    }
};

}  // namespace
