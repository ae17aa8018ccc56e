// Writing tensors: from floats and integers to planes.
#pragma once
#include <math.h>

#include "ladder/codes.h"
#include "simd/floats.h"
#include "ladder/places.h"
#include "ladder/random.h"

namespace {

// Of integers, one byte each.
template <class Integer>
void narrow_integers(const void* values, int byte, int64_t begin, int n, uint8_t* out) {
    const Integer* at = static_cast<const Integer*>(values) + begin;
    for (int i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(at[i] >> 8 * byte);
}

// Of integers of `size` bytes, the lowest `width` bits of byte number `byte`.
void pack(const void* values, int size, int byte, int width, int64_t begin, int64_t end, uint8_t* stream) {
    alignas(64) uint8_t bytes[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
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

// By how much magnitudes are made smaller before the rungs not below them are counted: this is what rounds.
class Drops {
   public:
    Drops(const Encoding& e, int64_t begin) : e_(e), words_(e.key, begin / 2) {}

    void operator()(double* drops) {
        alignas(64) int32_t words[GROUP / 2];
        for (int i = 0; i < BLOCK; i += GROUP) {
            for (int j = 0; j < GROUP / 2; j += LANES) store(words + j, words_.draw());
            for (int j = 0; j < GROUP / 2; ++j) {
                drops[i + j] = of(static_cast<uint32_t>(words[j]) & 0xFFFF);
                drops[i + j + GROUP / 2] = of(static_cast<uint32_t>(words[j]) >> 16);
            }
        }
    }

   private:
    double of(uint32_t half) const {
        double drop = e_.drops[half >> 8] * e_.drops[256 + (half & 255)];
        drop = drop > e_.least ? drop : e_.least;
        return drop < e_.most ? drop : e_.most;
    }

    const Encoding& e_;
    RandomWords words_;
};

// The rungs of the unit ladder behind its first that are not below each y, which are not above 1: a guess by `places`,
// which may be wrong, and from there to the one place where the comparisons hold.
inline void count_rungs(const double* y, const double* rungs, int last, const Places& places, int32_t* counts) {
    alignas(64) float guesses[BLOCK];
    for (int i = 0; i < BLOCK; ++i) guesses[i] = static_cast<float>(y[i]);
    for (int i = 0; i < BLOCK; i += LANES) {
        const Ints k = places.rungs(places(load(guesses + i)));
        store(counts + i, smaller(larger(k, splat(0)), splat(last)));
    }
    for (int i = 0; i < BLOCK; ++i) {
        int32_t k = counts[i];
        while (rungs[k + 1] >= y[i]) ++k;
        while (rungs[k] < y[i]) --k;
        counts[i] = k;
    }
}

// LogFormat.encode, and signs_of in lognet/tensor/storage.py: no rung means zero, so zeros draw their sign.
void encode(const Encoding& e, const Planes& planes, int64_t begin, int64_t end) {
    const Places places(e.spacing);
    Drops draw(e, begin);
    CodeBytes codes;
    alignas(64) double x[BLOCK], drops[BLOCK], y[BLOCK];
    alignas(64) float sides[BLOCK];
    alignas(64) int32_t counts[BLOCK];
    alignas(64) uint8_t signs[BLOCK / 8];
    for (double& drop : drops) drop = e.least;
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
        load_doubles(e.values, e.dtype, at, n, x);
        for (int i = n; i < BLOCK; ++i) x[i] = 1;
        if (e.drops) draw(drops);
        int zeros = 0;
        for (int i = 0; i < BLOCK; ++i) {
            const double dropped = fabs(x[i]) / e.scale * drops[i];
            y[i] = dropped < 1 ? dropped : 1;
            sides[i] = x[i] < 0 ? -1.0f : 1.0f;
            zeros += x[i] == 0;
        }
        for (int i = 0; zeros && i < BLOCK; ++i) {
            const bool coin = random_word(e.coin_key, at + i) >> 31;
            sides[i] = (x[i] == 0) & coin ? -1.0f : sides[i];
        }
        count_rungs(y, e.rungs, e.last, places, counts);
        for (int i = 0; i < BLOCK; i += GROUP) {
            Ints k[VECTORS];
            uint32_t negative = 0;
            for (int v = 0; v < VECTORS; ++v) {
                k[v] = load(counts + i + v * LANES);
                negative |= flags(load(sides + i + v * LANES) < splat(0.0f)) << (v * LANES);
            }
            memcpy(signs + i / 8, &negative, 4);
            store_codes(k, e.last, codes.low + i, planes.bits > 8 ? codes.high + i : nullptr);
        }
        if (n < BLOCK) codes.clear_behind(n);
        codes.save_low(planes, at, n);
        if (planes.bits > 8) codes.save_high(planes, at, n);
        memcpy(planes.sign + at / 8, signs, (n + 7) / 8);
    }
}

}  // namespace
