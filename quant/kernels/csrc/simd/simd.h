// Vectors of the widest instruction set that the compiler may use in the file that includes this.
#pragma once

#if defined(__AVX512F__)
#include "simd/avx512.h"
#elif defined(__AVX2__)
#include "simd/avx2.h"
#else
#include "simd/portable.h"
#endif

namespace {

// Signs and magnitudes of floats, by their bits.
inline Floats absolute(Floats x) { return floats_of(bits_of(x) & splat(INT32_MAX)); }
inline Ints sign_bit(Floats x) { return bits_of(x) & splat(INT32_MIN); }
inline Floats flip(Floats x, Ints sign) { return floats_of(bits_of(x) ^ sign); }
inline Mask is_set(Ints sign) { return negative(floats_of(sign)); }

}  // namespace
