// Weights in registers for in_registers.h, AVX2.
//
// A rung is 2^-(octave + fraction). The octave is subtracted from the exponent field. The fraction is looked up by a byte
// shuffle in a table of sixteen, and by a second one if it has more than five bits. The four bytes of the floats have tables
// of their own, so that one shuffle serves 32 weights; `interleave` makes floats of the bytes. All powers are scaled into
// [1, 2), where the exponent does not depend on the fraction. `factor` reverses the scaling. So a weight may have two roundings
// more than a decoded one.
#pragma once
#include <math.h>
#include <string.h>

#include "lognet.h"
#include "simd/simd.h"

namespace {

// The lower three bytes of the floats 2^((top - i) * step), i = 0 .. 15. The highest byte is the same for all sixteen.
struct Table {
    Bytes part[3];
    Table(double top, double step) {
        float powers[16];
        for (int i = 0; i < 16; ++i) powers[i] = static_cast<float>(exp2((top - i) * step));
        for (int j = 0; j < 3; ++j) part[j] = byte_table(powers, j);
    }
};

// The byte `positive` or `negative` for each of 32 weights, by its sign.
inline Bytes by_sign(const uint8_t* sign, Bytes positive, Bytes negative) {
    int32_t word;
    memcpy(&word, sign, 4);
    const Bytes copies = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                          2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const Bytes bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    const Bytes bits = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), copies), bit);
    return _mm256_blendv_epi8(positive, negative, _mm256_cmpeq_epi8(bits, bit));
}

// 8 bits: three of octave and five of fraction.
struct Decode8 {
    static constexpr int HIGH = 0;  // bits of a code in the high plane
    Table below, above;
    double factor;
    explicit Decode8(const float*) : below(31, 1 / 32.), above(15, 1 / 32.), factor(exp2(-31 / 32.)) {}
    inline void operator()(const uint8_t* low, const uint8_t*, const uint8_t* sign, Floats* out) const {
        const Bytes k = load_bytes(low);
        const Index index(k);
        const Bytes b0 = pick(below.part[0], above.part[0], index);
        const Bytes b1 = pick(below.part[1], above.part[1], index);
        Bytes b2 = pick(below.part[2], above.part[2], index);
        b2 = _mm256_sub_epi8(b2, _mm256_and_si256(left<2>(k), all(0x80)));
        const Bytes unit = by_sign(sign, all(0x3f), all(0xbf));
        const Bytes b3 = _mm256_sub_epi8(unit, _mm256_and_si256(right<6>(k), all(3)));
        __m256 floats[4];
        interleave(b0, b1, b2, b3, floats);
        for (int j = 0; j < 4; ++j) out[j] = {floats[j]};
    }
};

// 10 bits: two of octave in the high plane; the third bit of octave and seven of fraction in the low plane.
struct Decode10 {
    static constexpr int HIGH = 2;  // bits of a code in the high plane
    Table coarse, fine;
    double factor;
    explicit Decode10(const float*) : coarse(23, 1 / 8.), fine(15, 1 / 128.), factor(exp2(-23 / 8. - 15 / 128.)) {}
    inline void operator()(const uint8_t* low, const uint8_t* high, const uint8_t* sign, Floats* out) const {
        const Bytes k = load_bytes(low);
        const Bytes n0 = _mm256_and_si256(k, all(15)), n1 = _mm256_and_si256(right<4>(k), all(15));
        int64_t word;
        memcpy(&word, high, 8);
        const Bytes copies = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,  //
                                              4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
        Bytes h = _mm256_shuffle_epi8(_mm256_set1_epi64x(word), copies);
        h = _mm256_blend_epi16(h, right<4>(h), 0xaa);
        h = _mm256_and_si256(h, _mm256_set1_epi16(0x0c03));  // 0 .. 3 in even bytes, four times that in odd ones
        const Bytes quarter = _mm256_setr_epi8(0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0,  //
                                               0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0);
        const Bytes b3 = _mm256_sub_epi8(by_sign(sign, all(0x40), all(0xc0)), _mm256_shuffle_epi8(quarter, h));
        __m256 floats[4], factors[4];
        interleave(_mm256_shuffle_epi8(coarse.part[0], n1), _mm256_shuffle_epi8(coarse.part[1], n1),
                   _mm256_shuffle_epi8(coarse.part[2], n1), b3, floats);
        interleave(_mm256_shuffle_epi8(fine.part[0], n0), _mm256_shuffle_epi8(fine.part[1], n0),
                   _mm256_shuffle_epi8(fine.part[2], n0), all(0x3f), factors);
        for (int j = 0; j < 4; ++j) out[j] = {_mm256_mul_ps(floats[j], factors[j])};
    }
};

// 12 bits: three of octave and one of fraction in the high plane; eight more of fraction in the low plane.
struct Decode12 {
    static constexpr int HIGH = 4;  // bits of a code in the high plane
    Table below, above, fine;
    double factor;
    explicit Decode12(const float*)
        : below(31, 1 / 32.), above(15, 1 / 32.), fine(15, 1 / 512.), factor(exp2(-31 / 32. - 15 / 512.)) {}
    inline void operator()(const uint8_t* low, const uint8_t* high, const uint8_t* sign, Floats* out) const {
        const Bytes k = load_bytes(low);
        const Bytes n0 = _mm256_and_si256(k, all(15)), n1 = _mm256_and_si256(right<4>(k), all(15));
        Bytes h = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high)));
        h = _mm256_and_si256(_mm256_or_si256(h, left<4>(h)), all(15));
        const Bytes bit0 = left<7>(h);
        const Bytes b0 = pick(below.part[0], above.part[0], n1, bit0);
        const Bytes b1 = pick(below.part[1], above.part[1], n1, bit0);
        Bytes b2 = pick(below.part[2], above.part[2], n1, bit0);
        b2 = _mm256_sub_epi8(b2, _mm256_and_si256(left<6>(h), all(0x80)));
        const Bytes unit = by_sign(sign, all(0x3f), all(0xbf));
        const Bytes b3 = _mm256_sub_epi8(unit, _mm256_and_si256(right<2>(h), all(3)));
        __m256 floats[4], factors[4];
        interleave(b0, b1, b2, b3, floats);
        interleave(_mm256_shuffle_epi8(fine.part[0], n0), _mm256_shuffle_epi8(fine.part[1], n0),
                   _mm256_shuffle_epi8(fine.part[2], n0), all(0x3f), factors);
        for (int j = 0; j < 4; ++j) out[j] = {_mm256_mul_ps(floats[j], factors[j])};
    }
};

// The order in which `interleave` leaves a group, in fours.
constexpr int FOURS[8] = {0, 4, 1, 5, 2, 6, 3, 7};

inline float total(Floats a) {
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

}  // namespace
