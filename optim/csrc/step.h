// Madam's step of a piece of one parameter, block by block. The plain torch operations of optim/ are its specification.
#pragma once
#include "directions.h"
#include "madam.h"
#include "moves.h"
#include "simd/floats.h"

namespace {

// The gradient of a block as float32: its own memory if nothing must change, else a copy in `buffer`, filled with zeros.
inline const float* gradient(const Parameter& p, int64_t begin, int n, float* buffer) {
    if (n == BLOCK && p.grad_dtype == FLOAT32 && !p.hyper->maximize && !p.keep) {
        return static_cast<const float*>(p.grad) + begin;
    }
    memset(buffer, 0, BLOCK * sizeof(float));
    load_floats(p.grad, p.grad_dtype, begin, n, buffer);
    if (p.hyper->maximize) {
        for (int i = 0; i < n; ++i) buffer[i] = -buffer[i];
    }
    if (p.keep) {
        for (int i = 0; i < n; ++i) {
            int64_t bit = (begin + i) / p.keep_group;
            buffer[i] *= static_cast<float>(p.keep[bit >> 3] >> (bit & 7) & 1);
        }
    }
    return buffer;
}

inline void move_floats(const Parameter& p, const Scalars& scalars, const float* r, int64_t begin, int n) {
    alignas(64) float buffer[BLOCK];
    const bool direct = n == BLOCK && p.weight_dtype == FLOAT32;
    float* weight = direct ? static_cast<float*>(p.weight) + begin : buffer;
    if (!direct) {
        memset(buffer, 0, sizeof buffer);
        load_floats(p.weight, p.weight_dtype, begin, n, buffer);
    }
    if (p.hyper->sign_crossing) {
        affine_floats<true>(scalars, r, n, weight);
    } else {
        affine_floats<false>(scalars, r, n, weight);
    }
    if (!direct) save_floats(buffer, p.weight_dtype, begin, n, p.weight);
}

template <class Move>
void move_codes(const Parameter& p, const Scalars& scalars, Directions& directions, int64_t begin, int64_t end,
                int64_t* total) {
    alignas(64) float r[BLOCK], buffer[BLOCK];
    alignas(64) uint8_t tail_signs[BLOCK / 8] = {};
    CodeBytes codes;
    Move move(p, scalars, begin);
    const bool wide = p.planes.bits > 8;
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int n = block_length(at, end);
        const bool whole = n == BLOCK, in_place = whole && p.planes.bits >= 8;  // low codes of a byte each
        uint8_t* low = in_place ? p.planes.low + at : codes.low;
        if (!in_place) codes.load_low(p.planes, end, at, n);  // up to `end`, because another thread may write the next piece
        if (wide) codes.load_high(p.planes, end, at, n);
        uint8_t* signs = whole ? p.planes.sign + at / 8 : tail_signs;
        if (!whole) memcpy(signs, p.planes.sign + at / 8, (n + 7) / 8);
        directions(gradient(p, at, n, buffer), at, n, r);
        if (!whole) memset(r + n, 0, (BLOCK - n) * sizeof(float));
        move(r, n, low, wide ? codes.high : nullptr, signs);
        if (!whole) codes.clear_after(n), signs[n / 8] &= static_cast<uint8_t>((1 << n % 8) - 1);
        if (!in_place) codes.save_low(p.planes, at, n);
        if (wide) codes.save_high(p.planes, at, n);
        if (!whole) memcpy(p.planes.sign + at / 8, signs, (n + 7) / 8);
    }
    const Counts counts = move.counts();
    total[0] += counts.tried;
    total[1] += counts.tried - counts.moved;
    total[2] += counts.crossed;
}

using MoveCodes = void (*)(const Parameter&, const Scalars&, Directions&, int64_t, int64_t, int64_t*);

template <bool CROSSING, bool STOCHASTIC>
MoveCodes move_of(const Parameter& p) {
    if (p.hyper->affine == 0) return move_codes<MultiplicativeMove<CROSSING, STOCHASTIC>>;
    if (!p.ladder->by_octaves) return move_codes<AffineMove<MemoryTable, CROSSING, STOCHASTIC>>;
    if (p.planes.bits > 8) return move_codes<AffineMove<OctaveTable<true, true>, CROSSING, STOCHASTIC>>;
    return move_codes<AffineMove<OctaveTable<true, false>, CROSSING, STOCHASTIC>>;
}

inline MoveCodes move_of(const Parameter& p) {
    if (p.hyper->sign_crossing) return p.hyper->stochastic ? move_of<true, true>(p) : move_of<true, false>(p);
    return p.hyper->stochastic ? move_of<false, true>(p) : move_of<false, false>(p);
}

template <class Kind>
void step_with(const Parameter& p, const Scalars& scalars, int64_t begin, int64_t end, int64_t* counts) {
    Kind directions(p, scalars, begin, end);
    if (!p.weight) return move_of(p)(p, scalars, directions, begin, end, counts);
    alignas(64) float r[BLOCK], buffer[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int n = block_length(at, end);
        directions(gradient(p, at, n, buffer), at, n, r);
        move_floats(p, scalars, r, at, n);
    }
}

template <bool MOMENTUM>
void step_of(const Parameter& p, const Scalars& scalars, int64_t begin, int64_t end, int64_t* counts) {
    switch (p.hyper->state_bits) {
        case 4: return step_with<FewBitDirections<4, MOMENTUM>>(p, scalars, begin, end, counts);
        case 8: return step_with<FewBitDirections<8, MOMENTUM>>(p, scalars, begin, end, counts);
        case 16: return step_with<FewBitDirections<16, MOMENTUM>>(p, scalars, begin, end, counts);
        default: return step_with<FullDirections<MOMENTUM>>(p, scalars, begin, end, counts);
    }
}

void step(const Parameter& p, const Scalars& scalars, int64_t begin, int64_t end, int64_t* counts) {
    return p.mean ? step_of<true>(p, scalars, begin, end, counts) : step_of<false>(p, scalars, begin, end, counts);
}

// Whether every |x| < limit; false for NaN. The bits of positive floats, as integers, are in the order of the floats.
bool all_below(const void* grad, Dtype dtype, float limit, int64_t begin, int64_t end) {
    alignas(64) float buffer[BLOCK];
    Ints top = splat(0);
    for (int64_t at = begin; at < end; at += BLOCK) {
        const float* x = buffer;
        if (dtype == FLOAT32 && end - at >= BLOCK) {
            x = static_cast<const float*>(grad) + at;
        } else {
            memset(buffer, 0, sizeof buffer);
            load_floats(grad, dtype, at, block_length(at, end), buffer);
        }
        for (int i = 0; i < BLOCK; i += LANES) top = larger(top, bits_of(load(x + i)) & splat(INT32_MAX));
    }
    return flags(top > bits_of(splat(limit)) - splat(1)) == 0;
}

}  // namespace
