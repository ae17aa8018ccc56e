// Reading tensors: from planes to integers and floats.
#pragma once
#include "ladder/tables.h"

namespace {

void unpack(const uint8_t* stream, int width, int64_t count, int64_t begin, int64_t end, uint8_t* out) {
    alignas(64) uint8_t bytes[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
        unpack_bytes(stream, width, count, at, n, bytes);
        memcpy(out, bytes, n);
    }
}

void unpack_codes(const Planes& planes, int64_t count, int64_t begin, int64_t end, int32_t* out) {
    CodeBytes codes;
    alignas(64) int32_t last[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
        codes.load(planes, count, at, n);
        int32_t* to = n == BLOCK ? out : last;
        for (int i = 0; i < n; i += LANES) {
            const Ints k = widen(codes.low + i);
            store(to + i, planes.bits > 8 ? k | shift_left<8>(widen(codes.high + i)) : k);
        }
        if (n < BLOCK) memcpy(out, last, n * sizeof(int32_t));
    }
}

// sign * (rungs[k] * scale): the same two roundings as LogFormat.decode's.
template <class Rungs>
void decode_with(const Rungs& rungs, const Planes& planes, float scale, int64_t count, int64_t begin, int64_t end,
                 float* out) {
    CodeBytes codes;
    alignas(64) uint8_t signs[BLOCK / 8];
    alignas(64) float last[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
        codes.load(planes, count, at, n);
        memcpy(signs, planes.sign + at / 8, (n + 7) / 8);
        float* to = n == BLOCK ? out : last;
        rungs(codes.low, planes.bits > 8 ? codes.high : nullptr, n, to);
        for (int i = 0; i < n; i += LANES) store(to + i, with_signs(load(to + i) * splat(scale), signs, i));
        if (n < BLOCK) memcpy(out, last, n * sizeof(float));
    }
}

void decode(const Planes& planes, const float* rungs, float scale, int64_t count, int64_t begin, int64_t end,
            float* out) {
    with_rungs(rungs, planes.bits,
               [&](const auto& table) { decode_with(table, planes, scale, count, begin, end, out); });
}

}  // namespace
