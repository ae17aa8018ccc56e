// Writing tensors: from floats and integers to planes.
#pragma once
#include <math.h>

#include "ladder/codes.h"
#include "ladder/positions.h"
#include "ladder/random.h"
#include "simd/floats.h"

namespace {

// Byte number `byte` of each of `n` integers.
template <class Integer>
void narrow_integers(const void* values, int byte, int64_t begin, int n, uint8_t* out) {
    const Integer* at = static_cast<const Integer*>(values) + begin;
    for (int i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(at[i] >> 8 * byte);
}

// Packs the lowest `width` bits of byte number `byte` of integers of `size` bytes.
void pack(const void* values, int size, int byte, int width, int64_t begin, int64_t end, uint8_t* stream) {
    alignas(64) uint8_t bytes[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int n = block_length(at, end);
        memset(bytes, 0, sizeof bytes);
        switch (size) {
            case 1: narrow_integers<uint8_t>(values, byte, at, n, bytes); break;
            case 2: narrow_integers<uint16_t>(values, byte, at, n, bytes); break;
            case 4: narrow_integers<uint32_t>(values, byte, at, n, bytes); break;
            default: narrow_integers<uint64_t>(values, byte, at, n, bytes);
        }
        pack_bytes(bytes, width, at, n, stream);
    }
}

// The factors exp(-u * base_precision) of consecutive blocks. A magnitude times its factor, rounded up to a rung, is the
// magnitude rounded to one of the two rungs around it. Each factor is a product of two numbers from tables.
class RoundingFactors {
   public:
    RoundingFactors(const Encoding& e, int64_t begin) : e_(e), words_(e.key, begin / 2) {}

    void operator()(double* factors) {
        alignas(64) int32_t words[GROUP / 2];
        for (int i = 0; i < BLOCK; i += GROUP) {
            for (int j = 0; j < GROUP / 2; j += LANES) store(words + j, words_.draw());
            for (int j = 0; j < GROUP / 2; ++j) {
                factors[i + j] = of(static_cast<uint32_t>(words[j]) & 0xFFFF);
                factors[i + j + GROUP / 2] = of(static_cast<uint32_t>(words[j]) >> 16);
            }
        }
    }

   private:
    double of(uint32_t random16) const {
        double factor = e_.rounding_factors[random16 >> 8] * e_.rounding_factors[256 + (random16 & 255)];
        factor = factor > e_.least_factor ? factor : e_.least_factor;
        return factor < e_.most_factor ? factor : e_.most_factor;
    }

    const Encoding& e_;
    RandomWords words_;
};

// The number k of the lowest rung that is not below each y, where y <= 1. `positions` gives a guess, which may be off by
// some rungs. Comparisons in float64 correct it.
inline void find_rungs(const double* y, const double* rungs, int last, const Positions& positions, int32_t* found) {
    alignas(64) float guesses[BLOCK];
    for (int i = 0; i < BLOCK; ++i) guesses[i] = static_cast<float>(y[i]);
    for (int i = 0; i < BLOCK; i += LANES) {
        const Ints k = positions.rungs(positions(load(guesses + i)));
        store(found + i, smaller(larger(k, splat(0)), splat(last)));
    }
    for (int i = 0; i < BLOCK; ++i) {
        int32_t k = found[i];
        while (rungs[k + 1] >= y[i]) ++k;
        while (rungs[k] < y[i]) --k;
        found[i] = k;
    }
}

// LogFormat.encode with the signs. The ladder has no zero, so zeros go to the last rung with a random sign.
void encode(const Encoding& e, const Planes& planes, int64_t begin, int64_t end) {
    const Positions positions(e.spacing);
    RoundingFactors next_factors(e, begin);
    CodeBytes codes;
    alignas(64) double x[BLOCK], factors[BLOCK], y[BLOCK];
    alignas(64) float sides[BLOCK];
    alignas(64) int32_t rungs[BLOCK];
    alignas(64) uint8_t signs[BLOCK / 8];
    for (double& factor : factors) factor = e.least_factor;
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int n = block_length(at, end);
        load_doubles(e.values, e.dtype, at, n, x);
        for (int i = n; i < BLOCK; ++i) x[i] = 1;
        if (e.rounding_factors) next_factors(factors);
        int zeros = 0;
        for (int i = 0; i < BLOCK; ++i) {
            const double lowered = fabs(x[i]) / e.scale * factors[i];
            y[i] = lowered < 1 ? lowered : 1;
            sides[i] = x[i] < 0 ? -1.0f : 1.0f;
            zeros += x[i] == 0;
        }
        for (int i = 0; zeros && i < BLOCK; ++i) {
            const bool negative = random_word(e.sign_key, at + i) >> 31;
            sides[i] = (x[i] == 0) & negative ? -1.0f : sides[i];
        }
        find_rungs(y, e.rungs, e.last, positions, rungs);
        for (int i = 0; i < BLOCK; i += GROUP) {
            Ints k[VECTORS];
            uint32_t negative = 0;
            for (int v = 0; v < VECTORS; ++v) {
                k[v] = load(rungs + i + v * LANES);
                negative |= flags(load(sides + i + v * LANES) < splat(0.0f)) << (v * LANES);
            }
            memcpy(signs + i / 8, &negative, 4);
            store_codes(k, e.last, codes.low + i, planes.bits > 8 ? codes.high + i : nullptr);
        }
        if (n < BLOCK) codes.clear_after(n);
        codes.save_low(planes, at, n);
        if (planes.bits > 8) codes.save_high(planes, at, n);
        memcpy(planes.sign + at / 8, signs, (n + 7) / 8);
    }
}

}  // namespace
