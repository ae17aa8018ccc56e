// Registers of 32 bytes: tables of sixteen bytes that shuffles look up, and floats made of four such tables.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace {

typedef __m256i Bytes;

inline Bytes all(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
inline Bytes load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Bytes*>(p)); }

// Sixteen bytes, once in each half of a register.
inline Bytes twice(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Byte `part` of the bits in `mask` of sixteen floats, once in each half of a register.
inline Bytes byte_table(const float* x, int part, uint32_t mask = 0xFFFFFFFF) {
    uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) {
        uint32_t word;
        memcpy(&word, x + i, 4);
        bytes[i] = static_cast<uint8_t>((word & mask) >> 8 * part);
    }
    return twice(bytes);
}

// Shifts of 16-bit words. A right shift is a multiplication, because the units that shift are busy with shuffles.
template <int N>
inline Bytes left(Bytes a) {
    return _mm256_slli_epi16(a, N);
}
template <int N>
inline Bytes right(Bytes a) {
    return _mm256_mulhi_epu16(a, _mm256_set1_epi16(1 << (16 - N)));
}

// Makes 32 floats of their four bytes. Register j gets the floats 4j .. 4j + 3 and 16 + 4j .. 16 + 4j + 3.
inline void interleave(Bytes b0, Bytes b1, Bytes b2, Bytes b3, __m256* out) {
    const Bytes low = _mm256_unpacklo_epi8(b0, b1), low_ = _mm256_unpackhi_epi8(b0, b1);
    const Bytes high = _mm256_unpacklo_epi8(b2, b3), high_ = _mm256_unpackhi_epi8(b2, b3);
    out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low, high));
    out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low, high));
    out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_, high_));
    out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_, high_));
}

// Looks up 32 bytes in a table of 32, of which `below` and `above` are the halves, by the lower five bits of each index. A
// shuffle gives 0 where bit 7 of its index is set. The additions set bit 7 for the half that does not hold the entry.
struct Index {
    Bytes below, above;
    explicit Index(Bytes codes) {
        const Bytes five = _mm256_and_si256(codes, all(31));
        below = _mm256_add_epi8(five, all(0x70)), above = _mm256_add_epi8(five, all(0xF0));
    }
};
inline Bytes pick(Bytes below, Bytes above, const Index& index) {
    return _mm256_or_si256(_mm256_shuffle_epi8(below, index.below), _mm256_shuffle_epi8(above, index.above));
}
// The same with the lower four bits in `index`, and the fifth at bit 7 of each byte of `bit7`.
inline Bytes pick(Bytes below, Bytes above, Bytes index, Bytes bit7) {
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(below, index), _mm256_shuffle_epi8(above, index), bit7);
}

// Compares 32 bytes. Bit i is set where byte i is equal.
inline uint32_t equal_bytes(const uint8_t* a, const uint8_t* b) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(load_bytes(a), load_bytes(b))));
}

}  // namespace
