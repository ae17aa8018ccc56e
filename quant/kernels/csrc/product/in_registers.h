// Products whose weights stay in registers: for 8, 10 and 12 bits, ladders with 2^(bits - 3) rungs to the octave, and rows that
// start with a byte in every plane.
#pragma once
#include "ladder/positions.h"
#if defined(__AVX512F__)
#include "product/weights_avx512.h"
#else
#include "product/weights_avx2.h"
#endif

namespace {

// Copies `batch` rows of x in the order in which weights are decoded, filled with zeros to whole groups.
void arrange(const float* x, int64_t columns, int batch, int64_t stride, float* out) {
    for (int m = 0; m < batch; ++m, x += columns, out += stride) {
        for (int64_t c = 0; c < stride; c += GROUP) {
            float padded[GROUP];
            const float* from = x + c;
            if (columns - c < GROUP) {
                memset(padded, 0, sizeof padded);
                from = static_cast<float*>(memcpy(padded, from, (columns - c) * sizeof(float)));
            }
            for (int j = 0; j < 8; ++j) memcpy(out + c + 4 * j, from + 4 * FOURS[j], 4 * sizeof(float));
        }
    }
}

// Fetches memory 3 KiB ahead, because the processor's own prefetching stops at the ends of pages.
inline void prefetch(const uint8_t* at) { _mm_prefetch(reinterpret_cast<const char*>(at + 3072), _MM_HINT_T0); }

template <int M>
inline void add(const Floats* weights, const float* x, int64_t stride, Floats (*sums)[2]) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; ++j)
            sums[m][j % 2] = fused(weights[j], load(x + m * stride + LANES * j), sums[m][j % 2]);
    }
}

// M rows of an arranged x.
template <class Decode, int M>
void multiply(const Planes& planes, const float* rungs, float scale, int64_t rows, int64_t columns, const float* x,
              int64_t stride, int64_t begin, int64_t end, float* y) {
    const Decode decode(rungs);
    const float unit = static_cast<float>(scale * decode.factor);
    for (int64_t row = begin; row < end; ++row) {
        const int64_t first = row * columns / 8;
        const uint8_t *low = planes.low + 8 * first, *high = planes.high + Decode::HIGH * first;
        const uint8_t* sign = planes.sign + first;
        Floats weights[VECTORS], sums[M][2];
        for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = splat(0.0f);
        int64_t c = 0;
        for (; c + GROUP <= columns; c += GROUP) {
            prefetch(low + c);
            if (Decode::HIGH) prefetch(high + c / 8 * Decode::HIGH);
            prefetch(sign + c / 8);
            decode(low + c, high + c / 8 * Decode::HIGH, sign + c / 8, weights);
            add<M>(weights, x + c, stride, sums);
        }
        if (c < columns) {  // copies, because nothing may be read past a plane
            const int64_t left = columns - c;
            uint8_t low_end[GROUP] = {}, high_end[GROUP] = {}, sign_end[GROUP] = {};
            memcpy(low_end, low + c, left);
            if (Decode::HIGH) memcpy(high_end, high + c / 8 * Decode::HIGH, left / 8 * Decode::HIGH);
            memcpy(sign_end, sign + c / 8, left / 8);
            decode(low_end, high_end, sign_end, weights);
            add<M>(weights, x + c, stride, sums);
        }
        for (int m = 0; m < M; ++m) y[m * rows + row] += unit * total(sums[m][0] + sums[m][1]);
    }
}

typedef void (*Multiply)(const Planes&, const float*, float, int64_t, int64_t, const float*, int64_t, int64_t, int64_t,
                         float*);

template <class Decode>
Multiply multiply_for(int batch) {
    static_assert(TOGETHER == 4, "a case for each number of rows");
    return batch == 1   ? multiply<Decode, 1>
           : batch == 2 ? multiply<Decode, 2>
           : batch == 3 ? multiply<Decode, 3>
                        : multiply<Decode, 4>;
}

// The product of up to TOGETHER rows of x. It is not `ready` for other widths, for rows that start within a byte, or for a
// batch of 0.
class InRegisters {
   public:
    InRegisters(const Planes& planes, const float* rungs, float scale, int64_t rows, int64_t columns, const float* x,
                int batch)
        : planes_(planes), rungs_(rungs), scale_(scale), rows_(rows), columns_(columns) {
        const int bits = planes.bits;
        if (!batch || columns % 8 || (bits != 8 && bits != 10 && bits != 12)) return;
        stride_ = (columns + GROUP - 1) / GROUP * GROUP;
        x_ = static_cast<float*>(malloc(batch * stride_ * sizeof(float)));
        if (x_) arrange(x, columns, batch, stride_, x_);
        run_ = bits == 8    ? multiply_for<Decode8>(batch)
               : bits == 10 ? multiply_for<Decode10>(batch)
                            : multiply_for<Decode12>(batch);
    }
    ~InRegisters() { free(x_); }
    InRegisters(const InRegisters&) = delete;
    InRegisters& operator=(const InRegisters&) = delete;

    bool ready() const { return x_; }

    // Rows [begin, end) of the weight.
    void operator()(int64_t begin, int64_t end, float* y) const {
        run_(planes_, rungs_, scale_, rows_, columns_, x_, stride_, begin, end, y);
    }

   private:
    const Planes& planes_;
    const float* rungs_;
    float scale_;
    int64_t rows_, columns_, stride_ = 0;
    float* x_ = nullptr;  // arranged
    Multiply run_ = nullptr;
};

}  // namespace
