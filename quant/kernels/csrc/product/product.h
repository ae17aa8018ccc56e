// y += x W^T for few rows of x, straight from the codes.
//
// Each row of x uses a weight once. For few rows, writing the weight to memory as a float would cost more than the product.
// The order of the sums depends only on the number of columns and on the instruction set, not on the threads or on the number
// of rows of x.
#pragma once
#include <stdlib.h>

#include "ladder/read.h"
#include "parallel.h"

namespace {

constexpr int TOGETHER = 4;  // rows of x that share the decoding of a weight

}  // namespace

#if defined(__AVX2__)
#include "product/in_registers.h"
#endif

namespace {

// Decodes a block of a row, then multiplies by it: for any width, any ladder, and rows that start within a byte.
template <class Rungs>
void product_by_blocks(const Rungs& rungs, const Planes& planes, float scale, int64_t rows, int64_t columns,
                       const float* x, int batch, int64_t begin, int64_t end, float* y) {
    alignas(64) float block[BLOCK];
    for (int64_t row = begin; row < end; ++row) {
        const int64_t first = row * columns, last = first + columns;
        Floats sums[TOGETHER];
        float rest[TOGETHER] = {};
        for (Floats& sum : sums) sum = splat(0.0f);
        for (int64_t at = first / 8 * 8; at < last; at += BLOCK) {
            const int64_t from = at < first ? first : at, to = at + BLOCK < last ? at + BLOCK : last;
            decode_with(rungs, planes, scale, rows * columns, at, to, block);
            const float* weights = block + (from - at);
            const int n = static_cast<int>(to - from);
            for (int m = 0; m < batch; ++m) {
                const float* with = x + m * columns + (from - first);
                int i = 0;
                for (; i + LANES <= n; i += LANES) sums[m] = fused(load(weights + i), load(with + i), sums[m]);
                for (; i < n; ++i) rest[m] += weights[i] * with[i];
            }
        }
        for (int m = 0; m < batch; ++m) {
            float lanes[LANES];
            store(lanes, sums[m]);
            for (float lane : lanes) rest[m] += lane;
            y[m * rows + row] += rest[m];
        }
    }
}

// x is (batch, columns), y (batch, rows). `octaves` says that the ladder has 2^(bits - 3) rungs to the octave.
void product(const Planes& planes, const float* rungs, float scale, bool octaves, int64_t rows, int64_t columns,
             const float* x, int64_t batch, float* y, int threads) {
    constexpr int64_t WEIGHTS = 1 << 17;  // in a piece
    const int64_t most = WEIGHTS / (columns + 1) + 1, pieces = (rows + most - 1) / most;
    for (int64_t m = 0; m < batch; m += TOGETHER, x += TOGETHER * columns, y += TOGETHER * rows) {
        const int now = static_cast<int>(batch - m < TOGETHER ? batch - m : TOGETHER);
#if defined(__AVX2__)
        const InRegisters fast(planes, rungs, scale, rows, columns, x, octaves ? now : 0);
#endif
        auto piece = [&](int64_t i) {
            const int64_t begin = i * most, end = begin + most < rows ? begin + most : rows;
#if defined(__AVX2__)
            if (fast.ready()) return fast(begin, end, y);
#endif
            with_rungs(rungs, planes.bits, [&](const auto& table) {
                product_by_blocks(table, planes, scale, rows, columns, x, now, begin, end, y);
            });
        };
        parallel_for(pieces, threads, piece);
    }
}

}  // namespace
