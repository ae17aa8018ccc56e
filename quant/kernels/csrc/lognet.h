// The structures of the library's C interface. Python calls the functions of api.cpp through ctypes (../native.py).
//
// All results but those of products equal the results of the plain torch operations to the bit. Numbers are float32 where
// nothing else is said. Each operation is rounded by itself. Python computes all tables.
#pragma once
#include <stdint.h>

#define LOGNET_API extern "C" __attribute__((visibility("default")))

constexpr int GROUP = 32;   // weights that share one byte shuffle, and 16 random words
constexpr int BLOCK = 128;  // weights processed together, and the numbers that share a scale in quant/block_format.py

enum Dtype : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, FLOAT64 = 3 };  // Madam's step reads the first two

// Packed codes of `bits` bits and their signs (see bitpack.py). The number of weights gives the sizes.
struct Planes {
    uint8_t* low;
    uint8_t* high;  // unused for 8 bits and fewer
    uint8_t* sign;
    int32_t bits;
};

// The `Spacing` of quant/ratios.py: constants for one distance of rungs.
struct Spacing {
    float octave, q0, q1, q2, q3, zero;
    int32_t curve0, curve1, shift;
};

// The format of averages in few bits (quant/block_format.py). `table` has a number for each code.
struct Levels {
    const float* table;
    Spacing spacing;
    float lowest;
    int32_t last;
};

// The arguments of LogFormat.encode in quant/log_format.py.
struct Encoding {
    const void* values;  // finite
    Dtype dtype;
    double scale;
    const double* rungs;  // of the unit ladder: from 1 down, then a negative number
    Spacing spacing;
    double least_factor, most_factor;  // bounds of the rounding factors
    const double* rounding_factors;    // 256 for the upper byte of 16 random bits, 256 for the lower; null: least_factor
    uint64_t key, sign_key;            // of the random bits for rounding, and for the signs of zeros
    int32_t last;
};
