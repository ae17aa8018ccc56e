// Reading tensors: from planes to integers and floats.
#pragma once
#include "codes.h"
#if defined(__AVX512F__)
#include "octaves_avx512.h"
#endif

namespace {

void unpack(const uint8_t* stream, int width, int64_t count, int64_t begin, int64_t end, uint8_t* out) {
    alignas(64) uint8_t bytes[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
        unpack_bytes(stream, width, count, at, n, bytes);
        memcpy(out, bytes, n);
    }
}

// The rungs of lanes i .. of a block.
inline Ints rung_lanes(const CodeBytes& codes, bool high, int i) {
    Ints k = widen(codes.low + i);
    return high ? k | shift_left<8>(widen(codes.high + i)) : k;
}

void unpack_codes(const Planes& planes, int64_t count, int64_t begin, int64_t end, int32_t* out) {
    CodeBytes codes;
    alignas(64) int32_t last[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK, out += BLOCK) {
        int n = static_cast<int>(end - at < BLOCK ? end - at : BLOCK);
        codes.load(planes, count, at, n);
        int32_t* to = n == BLOCK ? out : last;
        for (int i = 0; i < n; i += LANES) store(to + i, rung_lanes(codes, planes.bits > 8, i));
        if (n < BLOCK) memcpy(out, last, n * sizeof(int32_t));
    }
}

// Rungs looked up in memory.
struct GatheredRungs {
    const float* rungs;
    Floats operator()(Ints k) const { return gather(rungs, k); }
};

// Calls body(table), whose table(k) are the rungs: from registers where these hold them.
template <class Body>
void with_rungs(const float* rungs, int bits, const Body& body) {
#if defined(__AVX512F__)
    if (bits <= 8) {
        const OctaveTable<false, false> table(rungs, bits);
        if (table.holds(rungs, bits)) return body(table);
    }
#endif
    body(GatheredRungs{rungs});
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
        for (int i = 0; i < n; i += LANES) {
            Floats magnitude = rungs(rung_lanes(codes, planes.bits > 8, i)) * splat(scale);
            store(to + i, with_signs(magnitude, signs, i));
        }
        if (n < BLOCK) memcpy(out, last, n * sizeof(float));
    }
}

void decode(const Planes& planes, const float* rungs, float scale, int64_t count, int64_t begin, int64_t end,
            float* out) {
    with_rungs(rungs, planes.bits,
               [&](const auto& table) { decode_with(table, planes, scale, count, begin, end, out); });
}

}  // namespace
