// Reading tensors: from planes to integers and floats.
#pragma once
#include "ladder/tables.h"

namespace {

void unpack(const uint8_t* stream, int width, int64_t count, int64_t begin, int64_t end, uint8_t* out) {
    alignas(64) uint8_t bytes[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        const int n = block_length(at, end);
        unpack_bytes(stream, width, count, at, n, bytes);
        memcpy(out, bytes, n);
    }
}

void unpack_codes(const Planes& planes, int64_t count, int64_t begin, int64_t end, int32_t* out) {
    CodeBytes codes;
    alignas(64) int32_t tail[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        const int n = block_length(at, end);
        codes.load(planes, count, at, n);
        int32_t* to = n == BLOCK ? out : tail;
        for (int i = 0; i < n; i += LANES) store(to + i, load_codes(codes.low + i, planes.bits > 8 ? codes.high + i : nullptr));
        if (n < BLOCK) memcpy(out, tail, n * sizeof(int32_t));
    }
}

// sign * (rungs[k] * scale), rounded twice, as LogFormat.decode does.
template <class Rungs>
void decode_with(const Rungs& rungs, const Planes& planes, float scale, int64_t count, int64_t begin, int64_t end,
                 float* out) {
    CodeBytes codes;
    alignas(64) uint8_t signs[BLOCK / 8];
    alignas(64) float tail[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        const int n = block_length(at, end);
        codes.load(planes, count, at, n);
        memcpy(signs, planes.sign + at / 8, (n + 7) / 8);
        float* to = n == BLOCK ? out : tail;
        rungs(codes.low, planes.bits > 8 ? codes.high : nullptr, n, to);
        for (int i = 0; i < n; i += LANES) store(to + i, with_signs(load(to + i) * splat(scale), signs, i));
        if (n < BLOCK) memcpy(out, tail, n * sizeof(float));
    }
}

void decode(const Planes& planes, const float* rungs, float scale, int64_t count, int64_t begin, int64_t end,
            float* out) {
    with_rungs(rungs, planes.bits,
               [&](const auto& table) { decode_with(table, planes, scale, count, begin, end, out); });
}

}  // namespace
