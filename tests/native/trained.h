// Parameters of Madam with all of their memory, and the options of a step.
#pragma once
#include <limits>
#include <string>

#include "exact_memory.h"

namespace {

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

}  // namespace
