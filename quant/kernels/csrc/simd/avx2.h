// Vectors of eight lanes: AVX2. portable.h, avx2.h and avx512.h define the same names, so that kernels are written once.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "simd/bytes_avx2.h"

namespace {

constexpr int LANES = 8;

struct Floats {
    __m256 v;
};
struct Ints {
    __m256i v;
};
struct Mask {
    __m256 v;
};

inline Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Ints load(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x.v); }
inline void store(int32_t* p, Ints x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.v); }
inline Floats splat(float x) { return {_mm256_set1_ps(x)}; }
inline Ints splat(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline Ints count_up() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)}; }

inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.v, b.v)}; }
// a * b + c, with one rounding or with two. Only products use it, because their roundings may differ between instruction sets.
inline Floats fused(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats root(Floats a) { return {_mm256_sqrt_ps(a.v)}; }
inline Floats smaller(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Floats larger(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats whole_part(Floats a) { return {_mm256_floor_ps(a.v)}; }
inline Floats nearest_even(Floats a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

inline Ints operator+(Ints a, Ints b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Ints operator-(Ints a, Ints b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline Ints operator*(Ints a, Ints b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline Ints operator&(Ints a, Ints b) { return {_mm256_and_si256(a.v, b.v)}; }
inline Ints operator|(Ints a, Ints b) { return {_mm256_or_si256(a.v, b.v)}; }
inline Ints operator^(Ints a, Ints b) { return {_mm256_xor_si256(a.v, b.v)}; }
inline Ints smaller(Ints a, Ints b) { return {_mm256_min_epi32(a.v, b.v)}; }
inline Ints larger(Ints a, Ints b) { return {_mm256_max_epi32(a.v, b.v)}; }
template <int N>
inline Ints shift_left(Ints a) {
    return {_mm256_slli_epi32(a.v, N)};
}
template <int N>
inline Ints shift_right(Ints a) {  // unsigned
    return {_mm256_srli_epi32(a.v, N)};
}
inline Ints shift_right_signed(Ints a, int n) { return {_mm256_sra_epi32(a.v, _mm_cvtsi32_si128(n))}; }

// Unsigned 16-bit integers, two in each lane. Sums and differences are modulo 2^16; of products the upper 16 bits remain.
inline Ints splat16(int x) { return {_mm256_set1_epi16(static_cast<short>(x))}; }
inline Ints add16(Ints a, Ints b) { return {_mm256_add_epi16(a.v, b.v)}; }
inline Ints subtract16(Ints a, Ints b) { return {_mm256_sub_epi16(a.v, b.v)}; }
inline Ints high_product16(Ints a, Ints b) { return {_mm256_mulhi_epu16(a.v, b.v)}; }
inline Ints shift_right16(Ints a, int n) { return {_mm256_srl_epi16(a.v, _mm_cvtsi32_si128(n))}; }

inline Ints bits_of(Floats a) { return {_mm256_castps_si256(a.v)}; }
inline Floats floats_of(Ints a) { return {_mm256_castsi256_ps(a.v)}; }
inline Floats to_floats(Ints a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Ints to_nearest(Floats a) { return {_mm256_cvtps_epi32(a.v)}; }
// Eight loads, because on many processors these are faster than the gather instruction.
inline Floats gather(const float* t, Ints index) {
    alignas(32) int32_t i[LANES];
    _mm256_store_si256(reinterpret_cast<__m256i*>(i), index.v);
    return {_mm256_setr_ps(t[i[0]], t[i[1]], t[i[2]], t[i[3]], t[i[4]], t[i[5]], t[i[6]], t[i[7]])};
}

inline Mask operator<(Floats a, Floats b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask operator>(Floats a, Floats b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline Mask operator==(Floats a, Floats b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask operator!=(Floats a, Floats b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
inline Mask operator==(Ints a, Ints b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))}; }
inline Mask operator>(Ints a, Ints b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
inline Mask negative(Floats a) { return {a.v}; }  // only the sign bit counts: for choose and flags
inline Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
inline Floats choose(Mask m, Floats yes, Floats no) { return {_mm256_blendv_ps(no.v, yes.v, m.v)}; }
inline Ints choose(Mask m, Ints yes, Ints no) { return bits_of(choose(m, floats_of(yes), floats_of(no))); }
inline Floats where(Mask m, Floats yes) { return {_mm256_and_ps(m.v, yes.v)}; }  // else 0
inline Ints minus_one(Mask m) { return {_mm256_castps_si256(m.v)}; }             // else 0
inline Ints count(Ints n, Mask m) { return {_mm256_sub_epi32(n.v, _mm256_castps_si256(m.v))}; }  // n + 1 where m
inline unsigned flags(Mask m) { return static_cast<unsigned>(_mm256_movemask_ps(m.v)); }  // bit i: lane i

inline Ints widen(const uint8_t* p) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}

// The signs of the weights i .. i + LANES - 1 of a plane of whole groups, at bit 31 of each lane; and x multiplied by these
// signs.
inline Ints load_signs(const uint8_t* plane, int i) {
    int32_t word;
    memcpy(&word, plane + (i >> 5 << 2), 4);
    const __m256i shifts = _mm256_sub_epi32(_mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24), _mm256_set1_epi32(i & 31));
    return {_mm256_and_si256(_mm256_sllv_epi32(_mm256_set1_epi32(word), shifts), _mm256_set1_epi32(INT32_MIN))};
}
inline Floats with_signs(Floats x, const uint8_t* plane, int i) { return floats_of(bits_of(x) ^ load_signs(plane, i)); }

// Stores the codes of a group, clamped to 0 .. last: the low bytes, and the high bytes unless `high` is null.
inline void store_codes(const Ints* k, int last, uint8_t* low, uint8_t* high) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes;
    if (high) {
        const __m256i most = _mm256_set1_epi16(static_cast<short>(last)), byte = _mm256_set1_epi16(0xFF);
        const __m256i a = _mm256_min_epu16(_mm256_packus_epi32(k[0].v, k[1].v), most);
        const __m256i b = _mm256_min_epu16(_mm256_packus_epi32(k[2].v, k[3].v), most);
        bytes = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
        const __m256i above = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(high), _mm256_permutevar8x32_epi32(above, order));
    } else {
        bytes = _mm256_packus_epi16(_mm256_packs_epi32(k[0].v, k[1].v), _mm256_packs_epi32(k[2].v, k[3].v));
        bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8(static_cast<char>(last)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low), _mm256_permutevar8x32_epi32(bytes, order));
}

}  // namespace
