// AVX-512 emulated in AVX2, for `make test-avx512`. The compiler includes this first in every file of the kernels (-include).
//
// The intrinsics are those of SIMD Everywhere, and here those that its version 0.7.4 lacks or has wrong.
#pragma once

#if defined(__AVX512F__)  // the files whose names end in _avx512; AVX2 is all that the compiler may use in them
#pragma GCC target("no-avx512f")
#undef __AVX512F__
#undef __AVX512BW__
#undef __AVX512DQ__
#undef __AVX512VL__
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#define __AVX512F__ 1

namespace {

inline __m512 emulated_cvtepi32_ps(__m512i a) { return __builtin_convertvector(reinterpret_cast<__v16si>(a), __v16sf); }

inline __m512i emulated_cvtps_epi32(__m512 a) {
    __v16si to;
    for (int i = 0; i < 16; ++i) to[i] = _mm_cvtss_si32(_mm_set_ss(a[i]));
    return reinterpret_cast<__m512i>(to);
}

inline __m512i emulated_cvtepu8_epi32(__m128i a) {
    return reinterpret_cast<__m512i>(__builtin_convertvector(reinterpret_cast<__v16qu>(a), __v16si));
}

inline __m128i emulated_cvtepi32_epi8(__m512i a) {
    return reinterpret_cast<__m128i>(__builtin_convertvector(reinterpret_cast<__v16si>(a), __v16qi));
}

inline __m512i emulated_srav_epi32(__m512i a, __m512i counts) {
    const __v16si x = reinterpret_cast<__v16si>(a);
    const __v16su n = reinterpret_cast<__v16su>(counts);
    __v16si to;
    for (int i = 0; i < 16; ++i) to[i] = x[i] >> (n[i] > 31 ? 31 : n[i]);
    return reinterpret_cast<__m512i>(to);
}

inline __m512i emulated_mulhi_epu16(__m512i a, __m512i b) {
    const __v32hu x = reinterpret_cast<__v32hu>(a), y = reinterpret_cast<__v32hu>(b);
    __v32hu to;
    for (int i = 0; i < 32; ++i) to[i] = static_cast<uint16_t>(uint32_t{x[i]} * y[i] >> 16);
    return reinterpret_cast<__m512i>(to);
}

inline __m512 emulated_i32gather_ps(__m512i index, const void* table, int scale) {
    const __v16si offsets = reinterpret_cast<__v16si>(index) * scale;
    __m512 to;
    for (int i = 0; i < 16; ++i) to[i] = *reinterpret_cast<const float*>(static_cast<const char*>(table) + offsets[i]);
    return to;
}

}  // namespace

// The argument `rounding` is an expression, and the macro of SIMD Everywhere has no parentheses around it.
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, rounding) simde_mm512_roundscale_ps(a, (rounding))

#undef _mm512_cvtepi32_ps  // macros in other versions, or without optimization
#undef _mm512_cvtps_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepi32_epi8
#undef _mm512_srav_epi32
#undef _mm512_mulhi_epu16
#undef _mm512_i32gather_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_srav_epi32 emulated_srav_epi32
#define _mm512_mulhi_epu16 emulated_mulhi_epu16
#define _mm512_i32gather_ps emulated_i32gather_ps
#endif

// Makes the choice of the instruction set believe that the processor has AVX-512.
#define AVX512_EMULATED 1
#define __builtin_cpu_supports(feature) (!__builtin_strncmp(feature, "avx512", 6) || __builtin_cpu_supports(feature))
