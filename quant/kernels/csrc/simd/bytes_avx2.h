// Registers of 32 bytes: tables of sixteen by shuffles, and floats from tables of their bytes.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace {

typedef __m256i Bytes;

inline Bytes all(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }

// Shifts of 16-bit words: right by a multiplication, as the units that shift are those that shuffle, and busy.
template <int N>
inline Bytes left(Bytes a) {
    return _mm256_slli_epi16(a, N);
}
template <int N>
inline Bytes right(Bytes a) {
    return _mm256_mulhi_epu16(a, _mm256_set1_epi16(1 << (16 - N)));
}

// Four floats' bytes to floats. Register j gets columns 4j .. 4j + 3 and 16 + 4j .. 16 + 4j + 3.
inline void interleave(Bytes b0, Bytes b1, Bytes b2, Bytes b3, __m256* out) {
    const Bytes low = _mm256_unpacklo_epi8(b0, b1), low_ = _mm256_unpackhi_epi8(b0, b1);
    const Bytes high = _mm256_unpacklo_epi8(b2, b3), high_ = _mm256_unpackhi_epi8(b2, b3);
    out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low, high));
    out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low, high));
    out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_, high_));
    out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_, high_));
}

// Bytes of a table of 32, in two halves: by the lower five bits of each index. A shuffle gives 0 where bit 7 is set, and adding
// sets it where bit 4 was, or was not.
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
// The same where bit 4 stands at bit 7 of bytes of its own.
inline Bytes pick(Bytes below, Bytes above, Bytes index, Bytes bit7) {
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(below, index), _mm256_shuffle_epi8(above, index), bit7);
}

// One bit for each of 32 bytes that are equal.
inline uint32_t equal_bytes(const uint8_t* a, const uint8_t* b) {
    const Bytes x = _mm256_loadu_si256(reinterpret_cast<const Bytes*>(a));
    const Bytes y = _mm256_loadu_si256(reinterpret_cast<const Bytes*>(b));
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y)));
}

}  // namespace
