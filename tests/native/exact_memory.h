// Random numbers, memory of exactly the bytes that may be touched, and weights and ladders in it.
#pragma once
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <string>

#include "madam.h"

namespace {

struct Random {
    uint64_t state;
    uint64_t word() {
        uint64_t z = state += 0x9E3779B97F4A7C15ull;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ z >> 27) * 0x94D049BB133111EBull;
        return z ^ z >> 31;
    }
    double uniform() { return static_cast<double>(word() >> 11) * 0x1p-53; }
    double signed_number() {  // over thirty octaves
        const uint64_t bits = word();
        return ldexp(static_cast<double>(static_cast<int64_t>(bits)), static_cast<int>(bits & 31) - 79);
    }
};

// `count` numbers that end where their allocation ends, after `offset` unused ones. Null if there are none, as for empty tensors.
template <class T>
class Buffer {
   public:
    Buffer(int64_t count, int offset) : count_(count), memory_(malloc((count + offset) * sizeof(T)), free) {
        data_ = count ? static_cast<T*>(memory_.get()) + offset : nullptr;
        if (count) memset(data_, 0, count * sizeof(T));
    }
    template <class Draw>
    Buffer(int64_t count, int offset, Draw draw) : Buffer(count, offset) {
        for (int64_t i = 0; i < count; ++i) data_[i] = static_cast<T>(draw(i));
    }
    T* data() const { return data_; }
    void append_to(std::string& all) const {
        if (count_) all.append(reinterpret_cast<const char*>(data_), count_ * sizeof(T));
    }

   private:
    int64_t count_;
    std::unique_ptr<void, void (*)(void*)> memory_;
    T* data_;
};

// A stream of `count` random values of `width` bits, followed by zeros.
Buffer<uint8_t> stream(int64_t count, int width, int offset, Random& random) {
    const int64_t bits = count * width;
    return {(bits + 7) / 8, offset, [&](int64_t i) { return random.word() & (i < bits / 8 ? 0xFF : (1 << bits % 8) - 1); }};
}

struct Weights {
    int bits;
    Buffer<uint8_t> low, high, sign;
    Weights(int bits, int64_t count, int offset, Random random)
        : bits(bits),
          low(stream(count, std::min(bits, 8), offset, random)),
          high(stream(count, std::max(bits - 8, 0), offset, random)),
          sign(stream(count, 1, offset, random)) {}
};

// Finite floats of a dtype: zeros, numbers of medium size, and random bits with an exponent below that of 2.
Buffer<uint8_t> floats(int dtype, int64_t count, int offset, Random random) {
    const int size = dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2;
    Buffer<uint8_t> bytes(count * size, offset * size);
    for (int64_t i = 0; i < count; ++i) {
        const double x = i % 5 ? random.signed_number() : 0;
        const float single = static_cast<float>(x);
        uint64_t word = random.word() & ~(1ull << (8 * size - 2));
        if (i % 2 && dtype == FLOAT64) memcpy(&word, &x, 8);
        if (i % 2 && dtype != FLOAT64) memcpy(&word, &single, 4), word >>= dtype == FLOAT32 ? 0 : 16;
        memcpy(bytes.data() + i * size, &word, size);
    }
    return bytes;
}

// As in quant/ratios.py: the only function that fills a Spacing.
Spacing spacing_of(double base_precision) {
    const double slope = expm1(base_precision);
    const auto quotient = [&](double u) { return (log1p(u * slope) / base_precision - u) / (u * (1 - u)); };
    const double curve1 = 3 * (quotient(1 / 3.) - quotient(2 / 3.)), curve0 = quotient(1 / 3.) + curve1 / 3;
    Spacing s = {};
    s.shift = std::max(0, std::min(16, 22 - static_cast<int>(ceil(log2(M_LN2 / base_precision)))));
    const double unit = -M_LN2 / base_precision * exp2(s.shift);
    s.octave = static_cast<float>(unit * 0x1p-23);
    s.q0 = static_cast<float>(unit * 0.44269504 * 0x1p-46);
    s.q1 = static_cast<float>(unit * -0.27134003 * 0x1p-69);
    s.q2 = static_cast<float>(unit * 0.15251823 * 0x1p-92);
    s.q3 = static_cast<float>(unit * -0.04522076 * 0x1p-115);
    s.zero = static_cast<float>(exp(base_precision) * 0x1p-15);
    s.curve0 = std::min(static_cast<int>(rint(curve0 * 65536)), 65535);
    s.curve1 = std::min(static_cast<int>(rint(curve1 * 65536)), 32767);
    return s;
}

// The tables of the default ladder, or of a slightly narrower one: the only class that fills a Ladder.
struct LadderTables {
    double base_precision;
    Buffer<float> rungs, inverse_rungs;
    Ladder ladder;

    LadderTables(int bits, bool standard)
        : base_precision(M_LN2 * exp2(3 - bits) * (standard ? 1 : 0.9)),
          rungs(1 << bits, 0, [&](int64_t k) { return exp(-k * base_precision); }),
          inverse_rungs(1 << bits, 0, [&](int64_t k) {
              const int64_t fine = k % (1 << std::max(bits - 8, 0));
              const auto power = [&](int64_t n) { return static_cast<float>(exp(n * base_precision)); };
              return power(k - fine - (1 << bits)) * power(fine);
          }) {
        ladder = {};
        ladder.inverse_rungs = inverse_rungs.data(), ladder.spacing = spacing_of(base_precision);
        ladder.last = (1 << bits) - 1, ladder.by_octaves = bits <= 12 && standard;
    }
};

// As in quant/block_format.py: the only class that fills a Levels.
struct LevelTables {
    double base_precision;
    int last;
    Buffer<float> table;
    Levels levels;

    LevelTables(int bits, bool is_signed)
        : base_precision(M_LN2 * 4 * bits / (1 << bits)),
          last((1 << (bits - is_signed)) - 1 - is_signed),
          table(1 << bits, 0, [&](int64_t code) {
              if (!is_signed) return exp(-code * base_precision);
              const int64_t k = code % (last + 2);
              return (code == k ? 1 : -1) * (k > last ? 0 : exp(-k * base_precision));  // there are two zeros
          }) {
        levels = {};
        levels.table = table.data(), levels.spacing = spacing_of(base_precision);
        levels.lowest = static_cast<float>(exp(-last * base_precision)), levels.last = last;
    }
};

}  // namespace
