// Weights in registers for in_registers.h, AVX-512, from the tables of octaves_avx512.h. So a weight of more than 8 bits may
// have two roundings more than a decoded one.
#pragma once
#include <string.h>

#include "ladder/octaves_avx512.h"

namespace {

// The upper BITS bits of the codes of sixteen weights, from bit 8 on in each lane.
template <int BITS>
inline Ints high_part(const uint8_t* high) {
    int32_t first, second;
    memcpy(&first, high, 4);
    memcpy(&second, high + (BITS == 4 ? 4 : 0), 4);
    const __m512i word = _mm512_mask_set1_epi32(_mm512_set1_epi32(first), 0xFF00, second);
    const Ints shifts = (count_up() & splat(32 / BITS - 1)) * splat(BITS) - splat(8);
    return Ints{_mm512_rorv_epi32(word, (shifts & splat(31)).v)} & splat(((1 << BITS) - 1) << 8);
}

// Codes of 8 + HIGH_BITS bits.
template <int HIGH_BITS>
struct DecodeBytes {
    static constexpr int HIGH = HIGH_BITS;  // bits of a code in the high plane
    OctaveTable<false, (HIGH > 0)> table;
    double factor = 1;

    explicit DecodeBytes(const float* rungs) : table(rungs, 8 + HIGH) {}

    inline void operator()(const uint8_t* low, const uint8_t* high, const uint8_t* sign, Floats* out) const {
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) {
            Ints k = widen(low + v * LANES);
            if constexpr (HIGH > 0) k = k | high_part<HIGH>(high + v * 2 * HIGH);
            out[v] = with_signs(table(k), sign, v * LANES);
        }
    }
};

using Decode8 = DecodeBytes<0>;
using Decode10 = DecodeBytes<2>;
using Decode12 = DecodeBytes<4>;

// The order in which a group is decoded, in fours.
constexpr int FOURS[8] = {0, 1, 2, 3, 4, 5, 6, 7};

inline float total(Floats a) {
    const __m256 above = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
    const __m256 v = _mm256_add_ps(_mm512_castps512_ps256(a.v), above);
    const __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 x = _mm_add_ps(w, _mm_movehl_ps(w, w));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

}  // namespace
