// Calls every function of the library on memory of exactly the bytes that it may touch, for `make test-sanitized`.
//
// The sanitizers find accesses beyond this memory, undefined behaviour and data races. The tests in Python check that results
// are right. Here the results must not depend on threads or alignment, nor, except for products, on the instruction set.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "parallel.h"
#include "trained.h"

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
