// Codes stored a vector at a time: for instruction sets that narrow one vector as well as several. Over their names.
#pragma once

namespace {

// The codes of a group, saturated to 0 .. last: low bytes, and high ones where there is room for them.
inline void store_codes(const Ints* k, int last, uint8_t* low, uint8_t* high) {
    for (int i = 0; i < 32; i += LANES, ++k) {
        const Ints code = smaller(larger(*k, splat(0)), splat(last));
        narrow(low + i, code);
        if (high) narrow(high + i, shift_right<8>(code));
    }
}

}  // namespace
