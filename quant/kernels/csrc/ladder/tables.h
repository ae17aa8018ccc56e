// Tables with a number for each code: rungs, and `inverse_rungs` of quant/ratios.py.
//
// A table is called with the low bytes and the high bytes (or null) of at most BLOCK codes, the number of codes, and the memory
// for the results. It reads and writes whole groups.
#pragma once
#include "ladder/codes.h"
#include "ladder/positions.h"

namespace {

// Any ladder: a table in memory.
class MemoryTable {
   public:
    explicit MemoryTable(const float* table, int = 0) : table_(table) {}

    void operator()(const uint8_t* low, const uint8_t* high, int n, float* out) const {
        n = whole_groups(n);
#if defined(__AVX512F__)
        for (int i = 0; i < n; i += LANES) store(out + i, gather(table_, load_codes(low + i, high ? high + i : nullptr)));
#else
        alignas(64) uint16_t k[BLOCK];  // two loops, because in one compilers make vectors of the codes and take them apart again
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

// Without wide registers: in memory too.
template <bool RISING, bool FINE>
using OctaveTable = MemoryTable;

}  // namespace

#endif

namespace {

// Whether a table gives `numbers` for all codes of `bits` bits (at most 8), to the bit.
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

// Calls body(table) with a table of the rungs. The table is in registers if these can give the same numbers to the bit.
template <class Body>
void with_rungs(const float* rungs, int bits, const Body& body) {
#if defined(__AVX2__)
    if (bits <= 8) {
        const OctaveTable<false, false> table(rungs, bits);
        if (holds(table, rungs, bits)) return body(table);
    }
#endif
    body(MemoryTable(rungs));
}

}  // namespace
