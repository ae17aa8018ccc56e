// Signs and magnitudes of floats, by their bits.
#pragma once
#include "simd/simd.h"

namespace {

inline Floats absolute(Floats x) { return floats_of(bits_of(x) & splat(INT32_MAX)); }
inline Ints sign_bit(Floats x) { return bits_of(x) & splat(INT32_MIN); }
inline Floats flip(Floats x, Ints sign) { return floats_of(bits_of(x) ^ sign); }
inline Mask is_set(Ints sign) { return negative(floats_of(sign)); }

}  // namespace
