// Numbers that go with the rungs of a ladder, a group at a time: `inverse` of quant/ratios.py.
#pragma once
#include "codes.h"
#if defined(__AVX512F__)
#include "octaves_avx512.h"
#endif

namespace {

// Any ladder: looked up in memory.
struct GatheredInverse {
    const float* table;

    explicit GatheredInverse(const Ladder& ladder, int) : table(ladder.inverse) {}

    void operator()(const uint8_t* low, const uint8_t* high, Floats* out) const {
        for (int i = 0; i < GROUP; i += LANES) {
            const Ints k = widen(low + i);
            *out++ = gather(table, high ? k | shift_left<8>(widen(high + i)) : k);
        }
    }
};

#if defined(__AVX512F__)

// Ladders `by_octaves`, of at most 8 bits (FINE false) or more.
template <bool FINE>
struct ShuffledInverse {
    OctaveTable<true, FINE> table;

    ShuffledInverse(const Ladder& ladder, int bits) : table(ladder.inverse, bits) {}

    void operator()(const uint8_t* low, const uint8_t* high, Floats* out) const {
        for (int i = 0; i < GROUP; i += LANES) {
            const Ints k = widen(low + i);
            *out++ = table(FINE ? k | shift_left<8>(widen(high + i)) : k);
        }
    }
};

#elif defined(__AVX2__)

// Ladders `by_octaves`, of at most 8 bits (FINE false) or more: tables of bytes in registers. The upper eight bits of a
// code are three of octave and five of fraction, and a fraction and an octave do not share bits of the exponent.
template <bool FINE>
struct ShuffledInverse {
    Bytes below[3], above[3], fine[3];
    __m128i up, down;

    ShuffledInverse(const Ladder& ladder, int bits)
        : up(_mm_cvtsi32_si128(FINE ? 16 - bits : 8 - bits)), down(_mm_cvtsi32_si128(FINE ? bits - 8 : 0)) {
        for (int part = 0; part < 3; ++part) {
            below[part] = table_of(ladder, bits, 0, part);
            above[part] = table_of(ladder, bits, 16, part);
            if (FINE) fine[part] = table_of(ladder, bits, -1, part);
        }
    }

    void operator()(const uint8_t* low, const uint8_t* high, Floats* out) const {
        // Interleaving undoes this order.
        const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
        const Bytes bytes = _mm256_permutevar8x32_epi32(load(low), order);
        Bytes coarse;
        if (FINE) {
            const Bytes rest = _mm256_and_si256(_mm256_srl_epi16(bytes, down), _mm256_set1_epi8(static_cast<char>(0xFF >> shift())));
            coarse = _mm256_or_si256(_mm256_sll_epi16(_mm256_permutevar8x32_epi32(load(high), order), up), rest);
        } else {
            coarse = _mm256_sll_epi16(bytes, up);
        }
        const Bytes index = _mm256_and_si256(coarse, all(15)), bit4 = _mm256_slli_epi16(coarse, 3);
        const Bytes b0 = pick(below[0], above[0], index, bit4), b1 = pick(below[1], above[1], index, bit4);
        const Bytes octave = _mm256_and_si256(_mm256_srli_epi16(coarse, 5), all(7));
        // The exponent of octave i is 119 + i: seven bits of it are in the upper byte and one is in the next.
        const Bytes odd = _mm256_setr_epi8(-128, 0, -128, 0, -128, 0, -128, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                           -128, 0, -128, 0, -128, 0, -128, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        const Bytes half = _mm256_setr_epi8(59, 60, 60, 61, 61, 62, 62, 63, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                            59, 60, 60, 61, 61, 62, 62, 63, 0, 0, 0, 0, 0, 0, 0, 0);
        const Bytes b2 = _mm256_or_si256(pick(below[2], above[2], index, bit4), _mm256_shuffle_epi8(odd, octave));
        __m256 floats[4], factors[4];
        interleave(b0, b1, b2, _mm256_shuffle_epi8(half, octave), floats);
        if (FINE) {
            const Bytes last = _mm256_and_si256(bytes, _mm256_set1_epi8(static_cast<char>((1 << shift()) - 1)));
            interleave(_mm256_shuffle_epi8(fine[0], last), _mm256_shuffle_epi8(fine[1], last),
                       _mm256_shuffle_epi8(fine[2], last), all(0x3f), factors);
            for (int j = 0; j < 4; ++j) floats[j] = _mm256_mul_ps(floats[j], factors[j]);
        }
        for (int j = 0; j < 4; ++j) out[j] = {floats[j]};
    }

   private:
    static Bytes load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Bytes*>(p)); }
    int shift() const { return _mm_cvtsi128_si32(down); }

    // Byte `part` of the fractions 2^((first + i) / 32), i = 0 .. 15, without their exponents, twice; with first = -1, of
    // the factors of the lower bits, with them.
    static Bytes table_of(const Ladder& ladder, int bits, int first, int part) {
        uint8_t bytes[32] = {};
        const int fine = bits > 8 ? bits - 8 : 0, coarse = bits < 8 ? 8 - bits : 0;
        for (int i = 0; i < (first < 0 ? 1 << fine : 16); ++i) {
            uint32_t word;
            float value;
            if (first < 0) {
                value = ladder.inverse[i] * 256.0f;  // of octave -8
            } else {
                if ((first + i) % (1 << coarse)) continue;  // no code has it
                value = ladder.inverse[(first + i) >> coarse << fine];
            }
            memcpy(&word, &value, 4);
            if (first >= 0) word &= 0x007FFFFF;
            bytes[i] = bytes[16 + i] = static_cast<uint8_t>(word >> 8 * part);
        }
        return load(bytes);
    }
};

#else

template <bool FINE>
using ShuffledInverse = GatheredInverse;

#endif

}  // namespace
