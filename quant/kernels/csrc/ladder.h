// The values of rungs, looked up in memory or, for the ladders that allow it, in registers.
#pragma once
#include "lognet.h"
#include "signs.h"

namespace {

// Any table.
struct GatheredLadder {
    static constexpr bool COARSE = false;
    const float* values;

    explicit GatheredLadder(const Rungs& rungs) : values(rungs.values) {}
    Floats operator[](Ints k) const { return gather(values, k); }
};

// A table of which each 32 rungs are the 32 before, some whole octaves lower: the exponent is subtracted. With ZERO the
// last rung is 0.
template <bool ZERO>
struct OctaveLadder {
    static constexpr bool COARSE = true;
    float padded[32] = {};
    Table32 first;
    int shift;
    Ints last;

    explicit OctaveLadder(const Rungs& rungs) : first(first_of(rungs, padded)), last(splat(rungs.last)) {
        shift = 23;
        for (int octaves = rungs.octaves; octaves > 1; octaves >>= 1) ++shift;
    }
    Floats operator[](Ints k) const {
        Floats value = floats_of(bits_of(first[k]) - shift_left(shift_right<5>(k), shift));
        return ZERO ? where(last > k, value) : value;
    }

   private:
    static const float* first_of(const Rungs& rungs, float* padded) {
        for (int i = 0; i < 32 && i <= rungs.last; ++i) padded[i] = rungs.values[i];
        return padded;
    }
};

}  // namespace
