// Calls every function of the library on memory of exactly the bytes that it may touch, for `make test-sanitized`.
//
// The sanitizers find accesses beyond this memory, undefined behaviour and data races. The tests in Python check that results
// are right. Here the results must not depend on threads or alignment, nor, except for products, on the instruction set.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "lognet.h"
#include "madam.h"
#include "parallel.h"

extern "C" {
void lognet_set_parallel(ParallelFn function);
int lognet_set_level(int level);
void lognet_decode(const uint8_t* low, const uint8_t* high, const uint8_t* sign, int bits, const float* rungs, float scale,
                   int64_t count, int64_t start, int64_t n, float* out, int threads);
void lognet_unpack(const uint8_t* stream, int width, int64_t count, int64_t start, int64_t n, uint8_t* out, int threads);
void lognet_unpack_codes(const uint8_t* low, const uint8_t* high, int bits, int64_t count, int64_t start, int64_t n,
                         int32_t* out, int threads);
void lognet_pack(const void* values, int size, int byte, int width, int64_t count, uint8_t* stream, int threads);
void lognet_encode(const void* values, int dtype, double scale, int bits, const double* rungs, const Spacing* spacing,
                   double least_factor, double most_factor, const double* rounding_factors, uint64_t key, uint64_t sign_key,
                   int64_t count, uint8_t* low, uint8_t* high, uint8_t* sign, int threads);
void lognet_product(const uint8_t* low, const uint8_t* high, const uint8_t* sign, int bits, const float* rungs, float scale,
                    int octaves, int64_t rows, int64_t columns, const float* x, int64_t batch, const float* bias,
                    const uint8_t* bias_low, const uint8_t* bias_high, const uint8_t* bias_sign, int bias_bits,
                    const float* bias_rungs, float bias_scale, float* y, int threads);
int lognet_check(const Parameter* parameters, int64_t count, uint8_t* sound, int threads);
int lognet_step(const Parameter* parameters, int64_t count, const uint8_t* sound, int threads);
}

namespace {

// What GOMP_parallel does, with threads that a sanitizer understands.
void on_threads(void (*body)(void*), void* data, unsigned threads, unsigned) {
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i) others.emplace_back(body, data);
    body(data);
    for (std::thread& other : others) other.join();
}

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

struct Options {
    int bits = 8, state_bits = 32;
    bool momentum = true, crossing = true, stochastic = true, affine = true, bfloat16 = false, pruned = false, standard = true;
    bool unusual = false;  // maximize, no correction of bias, no bound

    std::string name() const {
        std::string all = "step, " + std::to_string(bits) + " bits, state " + std::to_string(state_bits);
        if (!momentum) all += ", no momentum";
        if (!crossing) all += ", frozen";
        if (!stochastic) all += ", nearest";
        if (!affine) all += ", paper";
        if (bfloat16) all += ", bfloat16";
        if (pruned) all += ", pruned";
        if (!standard) all += ", other ladder";
        return unusual ? all + ", unusual" : all;
    }
};

// The only function that fills a Hyper.
Hyper hyper_of(const Options& options, const LevelTables& square, const LevelTables& mean) {
    Hyper hyper = {};
    hyper.lr = 0.3, hyper.p_scale = 12, hyper.beta = 0.999, hyper.warmup = 2, hyper.seed = ~4ull;
    hyper.g_bound = options.unusual ? INFINITY : 10;
    hyper.momentum = options.momentum ? 0.8 : 0;
    hyper.affine = options.affine ? 0.5 : 0;
    hyper.sign_crossing = options.crossing, hyper.stochastic = options.stochastic;
    hyper.bias_correction = !options.unusual, hyper.maximize = options.unusual;
    hyper.state_bits = options.state_bits;
    hyper.square = square.levels, hyper.mean = mean.levels;
    return hyper;
}

// The memory of an average: floats, or random codes with a scale for each block.
struct Average {
    Buffer<uint8_t> bytes;
    Buffer<uint16_t> words;
    Buffer<float> floats, scale;
    Average(int64_t count, int bits, int offset, Random& random)
        : bytes(stream(bits < 16 ? count : 0, bits < 16 ? bits : 8, offset, random)),
          words(bits == 16 ? count : 0, offset, [&](int64_t) { return random.word(); }),
          floats(bits == 32 ? count : 0, offset, [&](int64_t) { return fabs(random.signed_number()); }),
          scale(bits < 32 ? (count + BLOCK - 1) / BLOCK : 0, offset, [&](int64_t) { return fabs(random.signed_number()); }) {}
    void* data() const {
        if (bytes.data()) return bytes.data();
        return words.data() ? static_cast<void*>(words.data()) : floats.data();
    }
    void append_to(std::string& all) const {
        bytes.append_to(all), words.append_to(all), floats.append_to(all), scale.append_to(all);
    }
};

constexpr int64_t KEEP_GROUP = 3;
enum Kind { LOG, FLOAT_WEIGHT, BFLOAT16_WEIGHT };

// A parameter with all of its memory.
class Trained {
   public:
    Trained(Kind kind, const Options& options, const LadderTables& tables, const Hyper* hyper, int64_t count, int offset,
            Random random)
        : kind_(kind),
          options_(options),
          tables_(tables),
          hyper_(hyper),
          count_(count),
          weights_(options.bits, kind == LOG ? count : 0, offset, random),
          floats_(kind == FLOAT_WEIGHT ? count : 0, offset, [&](int64_t) { return random.signed_number(); }),
          bfloat16_(kind == BFLOAT16_WEIGHT ? count : 0, offset, [&](int64_t) { return bfloat16(random.signed_number()); }),
          grad_(options.bfloat16 ? 0 : count, offset, [&](int64_t) { return gradient(random); }),
          bfloat16_grad_(options.bfloat16 ? count : 0, offset, [&](int64_t) { return bfloat16(gradient(random)); }),
          keep_(stream(options.pruned ? (count + KEEP_GROUP - 1) / KEEP_GROUP : 0, 1, offset, random)),
          square_(count, options.state_bits, offset, random),
          mean_(options.momentum ? count : 0, options.state_bits, offset, random),
          scale_(1, offset, [](int64_t) { return 2.5; }),
          step_(1, offset),
          sigma_(1, offset, [](int64_t) { return 0.4; }),
          counts_(3, offset) {}

    void spoil() {  // makes the last gradient NaN
        if (options_.bfloat16) bfloat16_grad_.data()[count_ - 1] = 0x7FC0;
        else grad_.data()[count_ - 1] = std::numeric_limits<float>::quiet_NaN();
    }

    // The only function that fills a Parameter.
    Parameter parameter(int64_t index) const {
        Parameter p = {};
        p.grad = options_.bfloat16 ? static_cast<void*>(bfloat16_grad_.data()) : grad_.data();
        p.grad_dtype = options_.bfloat16 ? BFLOAT16 : FLOAT32;
        p.weight = kind_ == BFLOAT16_WEIGHT ? static_cast<void*>(bfloat16_.data()) : floats_.data();
        p.weight_dtype = kind_ == BFLOAT16_WEIGHT ? BFLOAT16 : FLOAT32;
        p.base_precision = 1;
        if (kind_ == LOG) {
            p.planes = {weights_.low.data(), weights_.high.data(), weights_.sign.data(), options_.bits};
            p.ladder = &tables_.ladder, p.base_precision = tables_.base_precision;
            p.scale = scale_.data(), p.counts = counts_.data();
        }
        p.keep = keep_.data(), p.keep_group = KEEP_GROUP;
        p.step = step_.data(), p.sigma = sigma_.data();
        p.square = square_.data(), p.square_scale = square_.scale.data();
        p.mean = mean_.data(), p.mean_scale = mean_.scale.data();
        p.count = count_, p.hyper = hyper_, p.index = index;
        return p;
    }

    void append_to(std::string& all) const {
        weights_.low.append_to(all), weights_.high.append_to(all), weights_.sign.append_to(all);
        floats_.append_to(all), bfloat16_.append_to(all);
        square_.append_to(all), mean_.append_to(all), counts_.append_to(all);
    }

   private:
    static double gradient(Random& random) { return random.uniform() < 0.2 ? 0 : random.signed_number(); }
    static uint16_t bfloat16(double x) {
        const float rounded = static_cast<float>(x);
        uint32_t bits;
        memcpy(&bits, &rounded, 4);
        return static_cast<uint16_t>(bits >> 16);
    }

    Kind kind_;
    Options options_;
    const LadderTables& tables_;
    const Hyper* hyper_;
    int64_t count_;
    Weights weights_;
    Buffer<float> floats_;
    Buffer<uint16_t> bfloat16_;
    Buffer<float> grad_;
    Buffer<uint16_t> bfloat16_grad_;
    Buffer<uint8_t> keep_;
    Average square_, mean_;
    Buffer<float> scale_, step_;
    Buffer<double> sigma_;
    Buffer<int64_t> counts_;
};

bool threads_only = false;
int runs = 0;

void expect(bool holds, const std::string& what) {
    if (holds) return;
    fprintf(stderr, "%s\n", what.c_str());
    exit(EXIT_FAILURE);
}

// Calls run(threads, offset) at every level, on 1 to `threads` threads, on aligned and on unaligned memory. The returned bytes
// must be the same each time, or the same within each level unless `levels_agree`.
template <class Run>
void everywhere(const std::string& what, int threads, bool levels_agree, Run run) {
    if (threads == 1 && threads_only) return;
    std::string expected;
    for (int level = 0, first = 1; level < 3; ++level) {
        if (!lognet_set_level(level)) continue;
        for (int number = 1; number <= threads; ++number) {
            for (int offset = 0; offset < 2; ++offset, ++runs, first = 0) {
                const std::string found = run(number, offset);
                if (first) expected = found;
                expect(found == expected, what + " (level " + std::to_string(level) + ", " + std::to_string(number) +
                                              " threads, offset " + std::to_string(offset) + ")");
            }
        }
        first = !levels_agree;
    }
}

const int64_t SMALL[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 127, 128, 129, 251, 389};
const int64_t LARGE[] = {32767, 32768, 32769, 70001};

void read(int bits, int64_t count, int threads) {
    const LadderTables tables(bits, true);
    const int64_t start = count / 3 / 8 * 8, windows[][2] = {{0, count}, {start, (count - start) / 2}, {start, count - start}};
    for (const auto& [from, n] : windows) {
        const std::string what = "read, " + std::to_string(bits) + " bits, " + std::to_string(count);
        everywhere(what, threads, true, [&, from = from, n = n](int number, int offset) {
            const Weights w(bits, count, offset, {1});
            const Buffer<float> values(n, offset);
            const Buffer<int32_t> codes(n, offset);
            const Buffer<uint8_t> bytes(n, offset);
            const uint8_t *low = w.low.data(), *high = w.high.data(), *sign = w.sign.data();
            lognet_decode(low, high, sign, bits, tables.rungs.data(), 2.5f, count, from, n, values.data(), number);
            lognet_unpack_codes(low, high, bits, count, from, n, codes.data(), number);
            lognet_unpack(low, std::min(bits, 8), count, from, n, bytes.data(), number);
            std::string all;
            values.append_to(all), codes.append_to(all), bytes.append_to(all);
            return all;
        });
    }
}

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

// Encodes floats of every dtype, to nearest and at random, and packs integers of every size.
void write(int bits, int64_t count, bool standard, int threads) {
    const LadderTables tables(bits, standard);
    const double eta = tables.base_precision;
    const Buffer<double> rungs((1 << bits) + 1, 0, [&](int64_t k) { return k >> bits ? -1 : exp(-k * eta); });
    const Buffer<double> factors(512, 0, [&](int64_t i) { return exp((i < 256 ? i * 256 : i - 255.5) * -0x1p-16 * eta); });
    const std::string sizes = std::to_string(bits) + " bits, " + std::to_string(count);
    for (const int dtype : {FLOAT32, BFLOAT16, FLOAT16, FLOAT64}) {
        for (const bool stochastic : {false, true}) {
            everywhere("write, " + sizes + ", dtype " + std::to_string(dtype), threads, true, [&](int number, int offset) {
                const Buffer<uint8_t> x = floats(dtype, count, offset, {4});
                const Weights w(bits, count, offset, {5});
                const double least = exp(stochastic ? -eta : -eta / 2), most = stochastic ? 1 : least;
                lognet_encode(x.data(), dtype, 2.5, bits, rungs.data(), &tables.ladder.spacing, least, most,
                              stochastic ? factors.data() : nullptr, ~6ull, 7, count, w.low.data(), w.high.data(),
                              w.sign.data(), number);
                std::string all;
                w.low.append_to(all), w.high.append_to(all), w.sign.append_to(all);
                return all;
            });
        }
    }
    for (const int size : {1, 2, 4, 8}) {
        everywhere("pack, " + sizes + ", of " + std::to_string(size) + " bytes", threads, true, [&](int number, int offset) {
            const int byte = bits > 8 && size > 1, width = bits > 8 ? bits - 8 : bits;
            const Buffer<uint8_t> integers(count * size, offset * size), packed((count * width + 7) / 8, offset);
            Random random = {8};
            for (int64_t i = 0; i < count; ++i) {
                const uint64_t word = random.word() & ((1ull << (width + 8 * byte)) - 1);
                memcpy(integers.data() + i * size, &word, size);
            }
            lognet_pack(integers.data(), size, byte, width, count, packed.data(), number);
            std::string all;
            packed.append_to(all);
            return all;
        });
    }
}

void multiply(int bits, int64_t rows, int64_t columns, int64_t batch, bool standard, int threads) {
    const LadderTables tables(bits, standard);
    const std::string what = "product, " + std::to_string(bits) + " bits, " + std::to_string(rows) + " x " + std::to_string(columns);
    everywhere(what + " with " + std::to_string(batch), threads, false, [&](int number, int offset) {
        Random random = {2};
        const Weights w(bits, rows * columns, offset, random);
        const Buffer<float> x(batch * columns, offset, [&](int64_t) { return random.signed_number(); }), y(batch * rows, offset);
        const Weights b(bits, rows, offset, random);
        const bool coded = batch % 2;
        lognet_product(w.low.data(), w.high.data(), w.sign.data(), bits, tables.rungs.data(), 2.5f, standard, rows, columns,
                       x.data(), batch, nullptr, coded ? b.low.data() : nullptr, b.high.data(), b.sign.data(), bits,
                       tables.rungs.data(), 0.5f, y.data(), number);
        std::string all;
        y.append_to(all);
        return all;
    });
}

// Two steps of parameters of all these sizes together, and of one with a NaN in its gradient.
std::string train(const Options& options, const LadderTables& tables, const Hyper& hyper, const std::vector<int64_t>& sizes,
                  int threads, int offset) {
    std::vector<Trained> trained;
    for (const Kind kind : {LOG, FLOAT_WEIGHT, BFLOAT16_WEIGHT}) {
        if (kind != LOG && !options.affine) continue;
        for (const int64_t size : sizes) {
            trained.emplace_back(kind, options, tables, &hyper, size, offset, Random{static_cast<uint64_t>(size)});
        }
    }
    trained.emplace_back(LOG, options, tables, &hyper, 129, offset, Random{3});
    trained.back().spoil();
    const int64_t count = static_cast<int64_t>(trained.size());
    const Buffer<Parameter> rows(count, 0, [&](int64_t i) { return trained[i].parameter(i); });
    const Buffer<uint8_t> sound(count, offset);
    for (int step = 0; step < 2; ++step) {
        expect(lognet_check(rows.data(), count, sound.data(), threads) == 0, "memory");
        for (int64_t i = 0; i < count; ++i) expect(sound.data()[i] == (i + 1 < count), options.name() + ", sound");
        expect(lognet_step(rows.data(), count, sound.data(), threads) == 0, "memory");
    }
    std::string all;
    for (const Trained& one : trained) one.append_to(all);
    return all;
}

void steps(int bits, int state_bits) {
    const LadderTables ladders[] = {{bits, false}, {bits, true}};
    const int coded = state_bits == 32 ? 8 : state_bits;
    const LevelTables square(coded, false), mean(coded, true);
    for (int flags = 0; flags < 256; ++flags) {
        const auto flag = [&](int i) { return (flags >> i & 1) != 0; };
        const Options options = {bits, state_bits, flag(0), flag(1), flag(2), flag(3), flag(4), flag(5), flag(6), flag(7)};
        const Hyper hyper = hyper_of(options, square, mean);
        const LadderTables& tables = ladders[options.standard];
        everywhere(options.name(), 1, true, [&](int threads, int offset) {
            return train(options, tables, hyper, {0, 1, 15, 16, 17, 127, 128, 129, 251}, threads, offset);
        });
        if (flags % 64 != (bits + state_bits) % 64) continue;  // large sizes for four of the options, different ones for each width
        everywhere(options.name() + ", large", 2, true, [&](int threads, int offset) {
            return train(options, tables, hyper, {32767, 32769, 3}, threads, offset);
        });
    }
}

// Python may call from several threads: backward passes decode, and optimizers may step at the same time.
void callers() {
    const Options options;
    const LadderTables tables(8, true);
    const LevelTables square(8, false), mean(8, true);
    const Hyper hyper = hyper_of(options, square, mean);
    const auto call = [&] { return train(options, tables, hyper, {70001}, 2, 0); };
    const std::string expected = call();
    std::string other;
    std::thread thread([&] { other = call(); });
    const std::string own = call();
    thread.join();
    expect(own == expected && other == expected, "two callers");
}

}  // namespace

// With any argument, only the runs on more than one thread.
int main(int count, char**) {
    threads_only = count > 1;
    lognet_set_parallel(on_threads);
#if defined(AVX512_EMULATED)
    expect(lognet_set_level(2), "this library has no AVX-512");
#endif
    for (int bits = 2; bits <= 16; ++bits) {
        for (const int64_t count : SMALL) read(bits, count, 1), write(bits, count, bits % 2, 1);
        for (const int64_t count : LARGE) read(bits, count, 2), write(bits, count, true, 2);
        const int64_t shapes[][2] = {{0, 8}, {3, 0}, {1, 1}, {5, 15}, {3, 16}, {4, 17}, {7, 31}, {2, 40}, {13, 104}, {3, 257}};
        for (const auto& [rows, columns] : shapes) {
            for (const int64_t batch : {0, 1, 2, 3, 4, 5, 9}) {
                for (const bool standard : {false, true}) multiply(bits, rows, columns, batch, standard, 1);
            }
        }
        for (const int64_t columns : {1000, 1003}) multiply(bits, 300, columns, 5, true, 2);
        for (const int state_bits : {32, 16, 8, 4}) steps(bits, state_bits);
    }
    callers();
    printf("%d runs of the kernels on memory of exact sizes: nothing found\n", runs);
}
