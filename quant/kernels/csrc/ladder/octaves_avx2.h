// Tables in registers, AVX2. The four bytes of the floats are in tables of their own, so that one shuffle serves 32 codes. Of the
// upper eight bits of a code, three are the octave, which changes the exponent, and five are the fraction of an octave.
#pragma once
#include "lognet.h"
#include "simd/simd.h"

namespace {

// A table of 2^bits numbers with 2^(bits - 3) to the octave. They grow with the code (RISING) or shrink. FINE is for more than
// 8 bits: the lower bits have a table of factors of their own. The first number of `table` is a power of two.
template <bool RISING, bool FINE>
class OctaveTable {
    static_assert(RISING || !FINE, "products of two floats are inverse_rungs of quant/ratios.py; rungs are rounded once");

   public:
    OctaveTable(const float* table, int bits)
        : up_(_mm_cvtsi32_si128(FINE ? 16 - bits : 8 - bits)), down_(_mm_cvtsi32_si128(FINE ? bits - 8 : 0)) {
        float fractions[32] = {}, factors[16] = {};
        const int fine = FINE ? bits - 8 : 0, coarse = FINE ? 0 : 8 - bits;
        for (int i = 0; i < 32; i += 1 << coarse) fractions[i] = table[i >> coarse << fine];
        for (int i = 0; FINE && i < 1 << fine; ++i) factors[i] = table[i] / table[0];
        for (int part = 0; part < 3; ++part) {
            below_[part] = byte_table(fractions, part, MANTISSA);
            above_[part] = byte_table(fractions + 16, part, MANTISSA);
            if (FINE) fine_[part] = byte_table(factors, part);
        }
        // The upper byte of a float has seven bits of the exponent, and the next byte has one.
        uint32_t first;
        memcpy(&first, table, 4);
        uint8_t half[16], odd[16];
        for (int i = 0; i < 16; ++i) {
            const uint32_t exponent = RISING ? (first >> 23) + i : (first >> 23) - i;
            half[i] = static_cast<uint8_t>(exponent >> 1 & 127), odd[i] = static_cast<uint8_t>(exponent << 7);
        }
        half_ = twice(half), odd_ = twice(odd);
    }

    void operator()(const uint8_t* low, const uint8_t* high, int n, float* out) const {
        for (int i = 0; i < n; i += GROUP) group(low + i, FINE ? high + i : nullptr, out + i);
    }

   private:
    void group(const uint8_t* low, const uint8_t* high, float* out) const {
        // `interleave` reverses this order.
        const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
        const Bytes bytes = _mm256_permutevar8x32_epi32(load_bytes(low), order), last = all((1 << _mm_cvtsi128_si32(down_)) - 1);
        Bytes coarse = _mm256_sll_epi16(FINE ? _mm256_permutevar8x32_epi32(load_bytes(high), order) : bytes, up_);
        if (FINE) coarse = _mm256_or_si256(coarse, _mm256_srl_epi16(_mm256_andnot_si256(last, bytes), down_));
        const Index index(coarse);
        Bytes octave = _mm256_and_si256(_mm256_srli_epi16(coarse, 5), all(7));
        if (!RISING) {  // within an octave, numbers below its first have the next exponent
            const Bytes fraction = _mm256_and_si256(coarse, all(31));
            octave = _mm256_sub_epi8(octave, _mm256_cmpgt_epi8(fraction, _mm256_setzero_si256()));
        }
        const Bytes b0 = pick(below_[0], above_[0], index), b1 = pick(below_[1], above_[1], index);
        const Bytes b2 = _mm256_or_si256(pick(below_[2], above_[2], index), _mm256_shuffle_epi8(odd_, octave));
        __m256 floats[4], factors[4];
        interleave(b0, b1, b2, _mm256_shuffle_epi8(half_, octave), floats);
        if (FINE) {
            const Bytes rest = _mm256_and_si256(bytes, last);
            interleave(_mm256_shuffle_epi8(fine_[0], rest), _mm256_shuffle_epi8(fine_[1], rest),
                       _mm256_shuffle_epi8(fine_[2], rest), all(0x3f), factors);
            for (int j = 0; j < 4; ++j) floats[j] = _mm256_mul_ps(floats[j], factors[j]);
        }
        for (int j = 0; j < 4; ++j) store(out + LANES * j, Floats{floats[j]});
    }

    static constexpr uint32_t MANTISSA = 0x007FFFFF;
    Bytes below_[3], above_[3], fine_[3], half_, odd_;
    __m128i up_, down_;
};

}  // namespace
