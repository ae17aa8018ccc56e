// Numbers that go with the codes of a ladder, a group of codes at a time: rungs, and `inverse` of quant/ratios.py.
//
// A table is called with the low and, or null, the high bytes of a group, and where to put the numbers.
#pragma once
#include "codes.h"
#include "places.h"

namespace {

// Any ladder: looked up in memory.
class Gathered {
   public:
    explicit Gathered(const float* table, int = 0) : table_(table) {}

    void operator()(const uint8_t* low, const uint8_t* high, Floats* out) const {
        for (int i = 0; i < GROUP; i += LANES) {
            const Ints k = widen(low + i);
            *out++ = gather(table_, high ? k | shift_left<8>(widen(high + i)) : k);
        }
    }

   private:
    const float* table_;
};

}  // namespace

#if defined(__AVX512F__)
#include "octaves_avx512.h"
#elif defined(__AVX2__)
#include "octaves_avx2.h"
#else

namespace {

// Where tables do not fit into registers.
template <bool RISING, bool FINE>
using OctaveTable = Gathered;

}  // namespace

#endif

namespace {

// Whether a table has the numbers of `numbers`, of codes of at most 8 bits, to the bit.
template <class Table>
bool holds(const Table& table, const float* numbers, int bits) {
    alignas(64) uint8_t codes[GROUP];
    alignas(64) float found[GROUP];
    for (int first = 0; first < 1 << bits; first += GROUP) {
        for (int i = 0; i < GROUP; ++i) codes[i] = static_cast<uint8_t>((first + i) & ((1 << bits) - 1));
        Floats out[VECTORS];
        table(codes, nullptr, out);
        for (int v = 0; v < VECTORS; ++v) store(found + v * LANES, out[v]);
        const int count = 1 << bits < GROUP ? 1 << bits : GROUP;
        if (memcmp(found, numbers + first, count * sizeof(float))) return false;
    }
    return true;
}

// Calls body(rungs) with the rungs of a ladder as a table: from registers, where these hold them.
template <class Body>
void with_rungs(const float* rungs, int bits, const Body& body) {
#if defined(__AVX2__)
    if (bits <= 8) {
        const OctaveTable<false, false> table(rungs, bits);
        if (holds(table, rungs, bits)) return body(table);
    }
#endif
    body(Gathered(rungs));
}

}  // namespace
