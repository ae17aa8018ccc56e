// The random bits of quant/random_bits.py: a hash of the index of each element.
#pragma once
#include "simd/simd.h"

namespace {

// The words of consecutive elements, LANES at a time.
struct RandomWords {
    Ints next, advance;

    RandomWords(uint64_t key, int64_t first) {
        uint32_t multiplier = static_cast<uint32_t>(key) | 1, offset = static_cast<uint32_t>(key >> 32);
        uint32_t start = multiplier * static_cast<uint32_t>(first) + offset;
        next = count_up() * splat(static_cast<int32_t>(multiplier)) + splat(static_cast<int32_t>(start));
        advance = splat(static_cast<int32_t>(multiplier * LANES));
    }

    Ints draw() {
        Ints h = next;
        next = next + advance;
        h = (h ^ shift_right<16>(h)) * splat(static_cast<int32_t>(0x85EBCA6Bu));
        h = (h ^ shift_right<13>(h)) * splat(static_cast<int32_t>(0xC2B2AE35u));
        return h ^ shift_right<16>(h);
    }
};

// The word of one element.
inline uint32_t random_word(uint64_t key, int64_t element) {
    uint32_t h = (static_cast<uint32_t>(key) | 1) * static_cast<uint32_t>(element) + static_cast<uint32_t>(key >> 32);
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return h ^ h >> 16;
}

// Numbers uniform on (0, 1], from integers 0 .. 2^16 - 1.
inline Floats uniform(Ints random16) { return to_floats(random16 + splat(1)) * splat(0x1p-16f); }

}  // namespace
