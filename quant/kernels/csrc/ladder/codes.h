// Codes between their packed planes and one integer each, a block of at most BLOCK at a time.
//
// Included once for every instruction set: all of it is in an unnamed namespace, so that no copy compiled for one
// machine is called on another.
#pragma once
#include <string.h>

#if defined(__BMI2__)
#include <immintrin.h>
#endif

#include "lognet.h"

namespace {

// Spreads the low `8 * width` bits of a word into eight bytes, and back: halves, quarters, eighths.
#if defined(__BMI2__)

inline uint64_t spread(uint64_t word, int width) { return _pdep_u64(word, 0x0101010101010101ull * ((1u << width) - 1)); }
inline uint64_t squeeze(uint64_t bytes, int width) { return _pext_u64(bytes, 0x0101010101010101ull * ((1u << width) - 1)); }

#else

inline uint64_t spread(uint64_t word, int width) {
    uint64_t low4 = (1ull << (4 * width)) - 1, low2 = (1ull << (2 * width)) - 1, low1 = (1ull << width) - 1;
    word = (word & low4) | ((word >> (4 * width) & low4) << 32);
    uint64_t two = low2 | low2 << 32;
    word = (word & two) | ((word >> (2 * width) & two) << 16);
    uint64_t four = low1 * 0x0001000100010001ull;
    return (word & four) | ((word >> width & four) << 8);
}

inline uint64_t squeeze(uint64_t bytes, int width) {
    uint64_t word = (bytes & 0x00FF00FF00FF00FFull) | (bytes & 0xFF00FF00FF00FF00ull) >> (8 - width);
    word = (word & 0x0000FFFF0000FFFFull) | (word & 0xFFFF0000FFFF0000ull) >> (16 - 2 * width);
    return (word & 0xFFFFFFFFull) | word >> 32 << (4 * width);
}

#endif

// `n` values of `width` bits from value `begin` (a multiple of 8) on, one byte each; `out` has room for whole eights: zeros
// where the stream ends, else the values that come next.
inline void unpack_bytes(const uint8_t* stream, int width, int64_t count, int64_t begin, int n, uint8_t* out) {
    const uint8_t *at = stream + begin / 8 * width, *end = stream + (count * width + 7) / 8;
    int i = 0;
    if (width == 8) i = n / 8 * 8, memcpy(out, at, i), at += i;
    for (; i < n && end - at >= 8; i += 8, at += width) {
        uint64_t word;
        memcpy(&word, at, 8);
        if (width != 8) word = spread(word, width);
        memcpy(out + i, &word, 8);
    }
    for (; i < n; i += 8, at += width) {
        uint64_t word = 0;
        for (int j = 0; j < 8 && at + j < end; ++j) word |= static_cast<uint64_t>(at[j]) << (8 * j);
        if (width != 8) word = spread(word, width);
        memcpy(out + i, &word, 8);
    }
}

// The reverse; `in` has room for whole eights, zero behind the last value. Writes no byte but the values' own.
inline void pack_bytes(const uint8_t* in, int width, int64_t begin, int n, uint8_t* stream) {
    uint8_t *at = stream + begin / 8 * width, *const end = at + (static_cast<int64_t>(n) * width + 7) / 8;
    if (width == 8) return static_cast<void>(memcpy(at, in, n));
    int i = 0;
    for (; end - at >= 8; i += 8, at += width) {  // eight bytes are written, of which the next word overwrites some
        uint64_t word;
        memcpy(&word, in + i, 8);
        word = squeeze(word, width);
        memcpy(at, &word, 8);
    }
    uint64_t rest = 0;
    for (int bits = 0; i < n; i += 8, bits += 8 * width) {
        uint64_t word;
        memcpy(&word, in + i, 8);
        rest |= squeeze(word, width) << bits;
    }
    for (; at < end; rest >>= 8) *at++ = static_cast<uint8_t>(rest);
}

// Codes of a block: low bytes, and high bytes where there are any.
struct CodeBytes {
    alignas(64) uint8_t low[BLOCK] = {}, high[BLOCK] = {};

    static int low_bits(const Planes& planes) { return planes.bits < 8 ? planes.bits : 8; }

    void load_low(const Planes& planes, int64_t count, int64_t begin, int n) {
        unpack_bytes(planes.low, low_bits(planes), count, begin, n, low);
    }
    void load_high(const Planes& planes, int64_t count, int64_t begin, int n) {
        unpack_bytes(planes.high, planes.bits - 8, count, begin, n, high);
    }
    void load(const Planes& planes, int64_t count, int64_t begin, int n) {
        load_low(planes, count, begin, n);
        if (planes.bits > 8) load_high(planes, count, begin, n);
    }

    // Before these, bytes behind the last code are zero.
    void clear_behind(int n) {
        memset(low + n, 0, BLOCK - n);
        memset(high + n, 0, BLOCK - n);
    }
    void save_low(const Planes& planes, int64_t begin, int n) const {
        pack_bytes(low, low_bits(planes), begin, n, planes.low);
    }
    void save_high(const Planes& planes, int64_t begin, int n) const {
        pack_bytes(high, planes.bits - 8, begin, n, planes.high);
    }
};

}  // namespace
