// Tables in registers, AVX-512. Two registers hold 32 floats. Of the upper eight bits of a code, the lower five choose one of
// them, and the other three change its exponent.
#pragma once
#include "ladder/codes.h"

namespace {

// A table of 2^bits numbers with 2^(bits - 3) to the octave. They grow with the code (RISING) or shrink. FINE is for more than
// 8 bits: the lower bits have a table of factors of their own. The first number of `table` is a power of two.
template <bool RISING, bool FINE>
class OctaveTable {
   public:
    OctaveTable(const float* table, int bits)
        : rest_(_mm512_set1_epi32(FINE ? bits - 8 : 0)), unit_(_mm512_set1_epi32(FINE ? 18 : 26 - bits)) {
        const int last = (1 << bits) - 1, rest = FINE ? bits - 8 : 0;
        alignas(64) float coarse[32], fine[16];
        for (int i = 0; i < 32; ++i) coarse[i] = table[(i << rest) & last];
        for (int i = 0; i < 16; ++i) fine[i] = FINE ? table[i & ((1 << rest) - 1)] / table[0] : 1.0f;
        below_ = _mm512_load_ps(coarse), above_ = _mm512_load_ps(coarse + 16), fine_ = _mm512_load_ps(fine);
    }

    void operator()(const uint8_t* low, const uint8_t* high, int n, float* out) const {
        for (int i = 0; i < n; i += LANES) store(out + i, (*this)(load_codes(low + i, FINE ? high + i : nullptr)));
    }

    // The permutations ignore the higher bits of their indices.
    Floats operator()(Ints k) const {
        const __m512i coarse = FINE ? _mm512_srlv_epi32(k.v, rest_) : k.v;
        const Ints octaves = {_mm512_sllv_epi32((Ints{coarse} & splat(0xE0)).v, unit_)};
        const Ints bits = {_mm512_castps_si512(_mm512_permutex2var_ps(below_, coarse, above_))};
        const Floats value = floats_of(RISING ? bits + octaves : bits - octaves);
        return FINE ? value * Floats{_mm512_permutexvar_ps(k.v, fine_)} : value;
    }

   private:
    __m512i rest_, unit_;
    __m512 below_, above_, fine_;
};

}  // namespace
