// Numbers that go with the codes of a ladder: rungs, and `inverse` of quant/ratios.py.
//
// A table is called with the low and, or null, the high bytes of at most a block of codes, their number, and where to put
// the numbers. It reads and writes whole groups.
#pragma once
#include "ladder/codes.h"
#include "ladder/places.h"

namespace {

// Any ladder: looked up in memory.
class Gathered {
   public:
    explicit Gathered(const float* table, int = 0) : table_(table) {}

    void operator()(const uint8_t* low, const uint8_t* high, int n, float* out) const {
        n = whole_groups(n);
#if defined(__AVX512F__)
        for (int i = 0; i < n; i += LANES) {
            const Ints k = widen(low + i);
            store(out + i, gather(table_, high ? k | shift_left<8>(widen(high + i)) : k));
        }
#else
        alignas(64) uint16_t k[BLOCK];  // in one loop, compilers make vectors of the codes, and take these apart again
        for (int i = 0; i < n; ++i) k[i] = static_cast<uint16_t>(high ? low[i] | high[i] << 8 : low[i]);
        for (int i = 0; i < n; ++i) out[i] = table_[k[i]];
#endif
    }

   private:
    const float* table_;
};

}  // namespace

#if defined(__AVX512F__)
#include "ladder/octaves_avx512.h"
#elif defined(__AVX2__)
#include "ladder/octaves_avx2.h"
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
    alignas(64) uint8_t codes[BLOCK];
    alignas(64) float found[BLOCK];
    for (int first = 0; first < 1 << bits; first += BLOCK) {
        const int count = 1 << bits < BLOCK ? 1 << bits : BLOCK;
        for (int i = 0; i < BLOCK; ++i) codes[i] = static_cast<uint8_t>(first + i % count);
        table(codes, nullptr, count, found);
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
