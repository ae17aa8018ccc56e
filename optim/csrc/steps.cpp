// Madam's step of many parameters in one call: computes their scalars, and cuts all weights into pieces for the threads.
#include <math.h>
#include <stdlib.h>

#include "kernels.h"
#include "madam.h"
#include "parallel.h"

namespace {

const StepKernels& chosen_kernels() {
    static const StepKernels* const levels[] = LOGNET_LEVELS(step_kernels);
    return *levels[chosen_level()];
}

// mix64 of quant/random_bits.py.
uint64_t mix(const uint64_t* words, int count) {
    uint64_t state = 0;
    for (int i = 0; i < count; ++i) {
        state = (state ^ words[i]) + 0x9E3779B97F4A7C15ull;
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9ull;
        state = (state ^ state >> 27) * 0x94D049BB133111EBull;
        state ^= state >> 31;
    }
    return state;
}

constexpr double STEP_SIGMA = 0.2;

// The numbers of one step: scalars_of in optim/parameter_step.py, with the same operations on doubles in the same order.
Scalars scalars_of(const Parameter& p) {
    const Hyper& h = *p.hyper;
    const double step = *p.step, sigma = *p.sigma;
    const double rise = step / (h.warmup > 1 ? h.warmup : 1);
    const double lr = h.lr * (rise < 1 ? rise : 1);
    const double relative = lr * (STEP_SIGMA / sigma < 1 ? STEP_SIGMA / sigma : 1);
    const double unit = p.scale ? static_cast<double>(*p.scale) * p.ladder->inverse_rungs[0] : 1;
    const uint64_t words[4] = {h.seed, static_cast<uint64_t>(step), static_cast<uint64_t>(p.index), 1};
    Scalars s;
    s.lr = static_cast<float>(lr / (p.scale ? p.base_precision : 1));
    s.relative = static_cast<float>(relative * (1 - h.affine));
    s.absolute = static_cast<float>(relative * h.affine * sigma / unit);
    s.correction = static_cast<float>(h.bias_correction ? 1 / (1 - pow(h.beta, step)) : 1);
    s.momentum_correction = static_cast<float>(h.bias_correction ? 1 / (1 - pow(h.momentum, step)) : 1);
    s.sigma_star = static_cast<float>(h.p_scale * sigma);
    s.key = mix(words, 3);
    s.state_key = mix(words, 4);
    return s;
}

constexpr int64_t PIECE = 1 << 15;  // weights, a multiple of BLOCK

struct Piece {
    int64_t parameter, begin, end;
};

constexpr int64_t WORTH_A_THREAD = 1 << 13;  // weights

int useful_threads(const Parameter* parameters, int64_t count, int threads) {
    int64_t weights = 0;
    for (int64_t i = 0; i < count; ++i) weights += parameters[i].count;
    const int64_t most = weights / WORTH_A_THREAD + 1;
    return threads < most ? threads : static_cast<int>(most);
}

// The pieces of all sound parameters, in order, or null without memory. The caller frees them.
Piece* pieces_of(const Parameter* parameters, const uint8_t* sound, int64_t count, int64_t* pieces) {
    *pieces = 0;
    for (int64_t i = 0; i < count; ++i) *pieces += sound[i] ? (parameters[i].count + PIECE - 1) / PIECE : 0;
    Piece* list = static_cast<Piece*>(malloc((*pieces + 1) * sizeof(Piece)));
    Piece* next = list;
    for (int64_t i = 0; list && i < count; ++i) {
        for (int64_t at = 0; sound[i] && at < parameters[i].count; at += PIECE) {
            const int64_t end = at + PIECE;
            *next++ = {i, at, end < parameters[i].count ? end : parameters[i].count};
        }
    }
    return list;
}

}  // namespace

// Sets sound[i] to 1 if all magnitudes of gradient i are below the limit of optim/state.py, else to 0, so also for NaN. State of 32
// bits holds their squares, fewer bits a scale. Returns 0, or -1 without memory.
LOGNET_API int lognet_check(const Parameter* parameters, int64_t count, uint8_t* sound, int threads) {
    for (int64_t i = 0; i < count; ++i) sound[i] = 1;
    int64_t pieces;
    Piece* list = pieces_of(parameters, sound, count, &pieces);
    if (!list) return -1;
    auto check = [&](int64_t i) {
        const Piece& piece = list[i];
        const Parameter& p = parameters[piece.parameter];
        const Dtype dtype = static_cast<Dtype>(p.grad_dtype);
        const float limit = p.hyper->state_bits == 32 ? 0x1.fffffep63f : INFINITY;
        if (!chosen_kernels().all_below(p.grad, dtype, limit, piece.begin, piece.end)) {
            __atomic_store_n(&sound[piece.parameter], 0, __ATOMIC_RELAXED);
        }
    };
    parallel_for(pieces, useful_threads(parameters, count, threads), check);
    free(list);
    return 0;
}

// One step of every sound parameter. It starts with the last pieces, because their gradients may still be in the cache. Returns
// as lognet_check does.
LOGNET_API int lognet_step(const Parameter* parameters, int64_t count, const uint8_t* sound, int threads) {
    int64_t pieces;
    Piece* list = pieces_of(parameters, sound, count, &pieces);
    Scalars* scalars = static_cast<Scalars*>(malloc((count + 1) * sizeof(Scalars)));
    if (!list || !scalars) {
        free(list);
        free(scalars);
        return -1;
    }
    for (int64_t i = 0; i < count; ++i) {
        if (sound[i]) *parameters[i].step += 1, scalars[i] = scalars_of(parameters[i]);
    }
    auto move = [&](int64_t i) {
        const Piece& piece = list[pieces - 1 - i];
        const Parameter& p = parameters[piece.parameter];
        int64_t counts[3] = {0, 0, 0};
        chosen_kernels().step(p, scalars[piece.parameter], piece.begin, piece.end, counts);
        for (int j = 0; p.counts && j < 3; ++j) __atomic_fetch_add(&p.counts[j], counts[j], __ATOMIC_RELAXED);
    };
    parallel_for(pieces, useful_threads(parameters, count, threads), move);
    free(list);
    free(scalars);
    return 0;
}

// The sizes of the structures that optim/engines/structures.py describes too, in its order.
LOGNET_API void lognet_step_sizes(int64_t* sizes) {
    const int64_t all[] = {sizeof(Spacing), sizeof(Levels), sizeof(Ladder), sizeof(Hyper), sizeof(Planes), sizeof(Parameter)};
    for (int64_t size : all) *sizes++ = size;
}
