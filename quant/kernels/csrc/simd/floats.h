// Conversion between the dtypes of tensors and float32 or float64.
#pragma once
#include <string.h>

#include "lognet.h"

namespace {

inline float from_bfloat16(uint16_t x) {
    uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline float from_float16(uint16_t x) {  // finite
    const uint32_t bits = static_cast<uint32_t>(x & 0x7FFF) << 13;
    float value;
    memcpy(&value, &bits, 4);
    return (x >> 15 ? -0x1p112f : 0x1p112f) * value;  // the difference of the exponents' biases
}

inline uint16_t to_bfloat16(float x) {  // finite; to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline void load_floats(const void* from, int32_t dtype, int64_t begin, int n, float* to) {
    if (dtype == FLOAT32) {
        memcpy(to, static_cast<const float*>(from) + begin, n * sizeof(float));
    } else {
        const uint16_t* at = static_cast<const uint16_t*>(from) + begin;
        for (int i = 0; i < n; ++i) to[i] = from_bfloat16(at[i]);
    }
}

inline void save_floats(const float* from, int32_t dtype, int64_t begin, int n, void* to) {
    if (dtype == FLOAT32) {
        memcpy(static_cast<float*>(to) + begin, from, n * sizeof(float));
    } else {
        uint16_t* at = static_cast<uint16_t*>(to) + begin;
        for (int i = 0; i < n; ++i) at[i] = to_bfloat16(from[i]);
    }
}

// Exact for every dtype.
inline void load_doubles(const void* from, Dtype dtype, int64_t begin, int n, double* to) {
    if (dtype == FLOAT64) {
        memcpy(to, static_cast<const double*>(from) + begin, n * sizeof(double));
    } else if (dtype == FLOAT32) {
        const float* at = static_cast<const float*>(from) + begin;
        for (int i = 0; i < n; ++i) to[i] = at[i];
    } else {
        const uint16_t* at = static_cast<const uint16_t*>(from) + begin;
        for (int i = 0; i < n; ++i) to[i] = dtype == BFLOAT16 ? from_bfloat16(at[i]) : from_float16(at[i]);
    }
}

}  // namespace
