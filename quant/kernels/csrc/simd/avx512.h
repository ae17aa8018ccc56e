// Vectors of sixteen lanes: AVX-512 (F, BW, DQ, VL). portable.h, avx2.h and avx512.h define the same names.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "simd/bytes_avx2.h"

namespace {

constexpr int LANES = 16;

struct Floats {
    __m512 v;
};
struct Ints {
    __m512i v;
};
struct Mask {
    __mmask16 v;
};

inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Ints load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x.v); }
inline void store(int32_t* p, Ints x) { _mm512_storeu_si512(p, x.v); }
inline Floats splat(float x) { return {_mm512_set1_ps(x)}; }
inline Ints splat(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints count_up() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }

inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
// a * b + c, with one rounding or with two. Only products use it, because their roundings may differ between instruction sets.
inline Floats fused(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats root(Floats a) { return {_mm512_sqrt_ps(a.v)}; }
inline Floats smaller(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats whole_part(Floats a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline Floats nearest_even(Floats a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Ints operator-(Ints a, Ints b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Ints operator*(Ints a, Ints b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline Ints operator&(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
inline Ints operator|(Ints a, Ints b) { return {_mm512_or_si512(a.v, b.v)}; }
inline Ints operator^(Ints a, Ints b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline Ints smaller(Ints a, Ints b) { return {_mm512_min_epi32(a.v, b.v)}; }
inline Ints larger(Ints a, Ints b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int N>
inline Ints shift_left(Ints a) {
    return {_mm512_slli_epi32(a.v, N)};
}
template <int N>
inline Ints shift_right(Ints a) {  // unsigned
    return {_mm512_srli_epi32(a.v, N)};
}
inline Ints shift_right_signed(Ints a, int n) { return {_mm512_srav_epi32(a.v, _mm512_set1_epi32(n))}; }

// Unsigned 16-bit integers, two in each lane. Sums and differences are modulo 2^16; of products the upper 16 bits remain.
inline Ints splat16(int x) { return {_mm512_set1_epi16(static_cast<short>(x))}; }
inline Ints add16(Ints a, Ints b) { return {_mm512_add_epi16(a.v, b.v)}; }
inline Ints subtract16(Ints a, Ints b) { return {_mm512_sub_epi16(a.v, b.v)}; }
inline Ints high_product16(Ints a, Ints b) { return {_mm512_mulhi_epu16(a.v, b.v)}; }
inline Ints shift_right16(Ints a, int n) { return {_mm512_srlv_epi16(a.v, _mm512_set1_epi16(static_cast<short>(n)))}; }

inline Ints bits_of(Floats a) { return {_mm512_castps_si512(a.v)}; }
inline Floats floats_of(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
inline Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints to_nearest(Floats a) { return {_mm512_cvtps_epi32(a.v)}; }
inline Floats gather(const float* table, Ints index) { return {_mm512_i32gather_ps(index.v, table, 4)}; }

inline Mask operator<(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask operator>(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline Mask operator==(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask operator!=(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
inline Mask operator==(Ints a, Ints b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
inline Mask operator>(Ints a, Ints b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
inline Mask negative(Floats a) { return {_mm512_movepi32_mask(_mm512_castps_si512(a.v))}; }
inline Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
inline Floats choose(Mask m, Floats yes, Floats no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
inline Ints choose(Mask m, Ints yes, Ints no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }
inline Floats where(Mask m, Floats yes) { return {_mm512_maskz_mov_ps(m.v, yes.v)}; }  // else 0
inline Ints minus_one(Mask m) { return {_mm512_movm_epi32(m.v)}; }                      // else 0
inline Ints count(Ints n, Mask m) { return {_mm512_mask_add_epi32(n.v, m.v, n.v, _mm512_set1_epi32(1))}; }  // n + 1 where m
inline unsigned flags(Mask m) { return m.v; }                                           // bit i: lane i

inline Ints widen(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

// The signs of the weights i .. i + LANES - 1 of a plane, at bit 31 of each lane; and x multiplied by these signs.
inline __mmask16 load_mask(const uint8_t* plane, int i) {
    return static_cast<__mmask16>(plane[i >> 3] | plane[(i >> 3) + 1] << 8);
}
inline Ints load_signs(const uint8_t* plane, int i) {
    return {_mm512_maskz_mov_epi32(load_mask(plane, i), _mm512_set1_epi32(INT32_MIN))};
}
inline Floats with_signs(Floats x, const uint8_t* plane, int i) {
    const __m512i bits = _mm512_castps_si512(x.v);
    return {_mm512_castsi512_ps(_mm512_mask_xor_epi32(bits, load_mask(plane, i), bits, _mm512_set1_epi32(INT32_MIN)))};
}

// Stores the codes of a group, clamped to 0 .. last: the low bytes, and the high bytes unless `high` is null.
inline void store_codes(const Ints* k, int last, uint8_t* low, uint8_t* high) {
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    const __m512i words = _mm512_permutexvar_epi64(order, _mm512_packus_epi32(k[0].v, k[1].v));
    const __m512i codes = _mm512_min_epu16(words, _mm512_set1_epi16(static_cast<short>(last)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low), _mm512_cvtepi16_epi8(codes));
    if (high) _mm256_storeu_si256(reinterpret_cast<__m256i*>(high), _mm512_cvtepi16_epi8(_mm512_srli_epi16(codes, 8)));
}

}  // namespace
