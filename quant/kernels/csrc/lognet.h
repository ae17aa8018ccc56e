// The plain C face of the kernels: pointers and sizes, called through ctypes (see ../library.py and ../native.py).
//
// All but the products gives, bit for bit, what the plain torch code gives that it stands in for. Numbers are float32, each
// operation rounded by itself; tables are built once by the Python side.
#pragma once
#include <stdint.h>

#define LOGNET_API extern "C" __attribute__((visibility("default")))

constexpr int GROUP = 32;   // weights that share the shuffles of a table of bytes, and a draw of random words
constexpr int BLOCK = 128;  // weights worked on together, and the numbers that share a scale in quant/block_format.py

enum Dtype : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, FLOAT64 = 3 };  // steps read the first two

// Packed codes (see quant/bitpack.py): the sizes follow from the number of weights.
struct Planes {
    uint8_t* low;
    uint8_t* high;
    uint8_t* sign;
    int32_t bits;
};

// The constants of quant/ratios.py for a distance of rungs.
struct Spacing {
    float octave, q0, q1, q2, q3, zero;
    int32_t bow0, bow1, shift;
};

// Averages in few bits: quant/block_format.py. `table` has a number for each code.
struct Levels {
    const float* table;
    Spacing spacing;
    float lowest;
    int32_t last;
};

// What it takes to encode floats: the numbers of LogFormat.encode in quant/log_format.py.
struct Encoding {
    const void* values;  // finite
    Dtype dtype;
    double scale;
    const double* rungs;  // of the unit ladder, from 1 down; then a negative number
    Spacing spacing;
    double least, most;
    const double* drops;  // for the upper byte of 16 random bits, then for the lower one; null: `least` for all
    uint64_t key, coin_key;
    int32_t last;
};
