// Packing and unpacking of codes, at most BLOCK at a time.
//
// Every instruction set compiles these headers for itself. All is in unnamed namespaces, because otherwise the linker could
// keep a copy that this machine cannot run.
#pragma once
#include <string.h>

#if defined(__BMI2__)
#include <immintrin.h>
#endif

#include "lognet.h"
#include "simd/simd.h"

namespace {

// The number of weights from `at` to the end of its block, or to `end`.
inline int block_length(int64_t at, int64_t end) { return static_cast<int>(end - at < BLOCK ? end - at : BLOCK); }

// `spread` moves the eight numbers in the low `8 * width` bits of a word to a byte each. `squeeze` reverses it.
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

// Unpacks `n` values of `width` bits, from value `begin` (a multiple of 8) on, to a byte each. `out` is filled to a multiple of
// 8: with the values that follow, and with zeros after the end of the stream.
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

// Reverses `unpack_bytes`. `in` is filled with zeros to a multiple of 8. Writes no byte beyond those of the values.
inline void pack_bytes(const uint8_t* in, int width, int64_t begin, int n, uint8_t* stream) {
    uint8_t *at = stream + begin / 8 * width, *const end = at + (static_cast<int64_t>(n) * width + 7) / 8;
    if (width == 8) return static_cast<void>(memcpy(at, in, n));
    int i = 0;
    for (; end - at >= 8; i += 8, at += width) {  // writes eight bytes, of which the next word overwrites some
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

// The codes of a block: low bytes, and high bytes for more than 8 bits.
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

    // Call this before saving n < BLOCK codes: bytes after the last code must be zero.
    void clear_after(int n) {
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

// The codes of LANES weights, from their low bytes and, unless null, their high bytes.
inline Ints load_codes(const uint8_t* low, const uint8_t* high) {
    const Ints k = widen(low);
    return high ? k | shift_left<8>(widen(high)) : k;
}

}  // namespace
