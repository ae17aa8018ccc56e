// Vectors of four lanes in the vector extensions of GCC and Clang, for any processor. portable.h, avx2.h and avx512.h define
// the same names.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace {

constexpr int LANES = 4;

typedef float RawFloats __attribute__((vector_size(16)));
typedef int32_t RawInts __attribute__((vector_size(16)));
typedef uint32_t RawWords __attribute__((vector_size(16)));

struct Floats {
    RawFloats v;
};
struct Ints {
    RawInts v;
};
struct Mask {
    RawInts v;
};

inline Floats load(const float* p) {
    Floats x;
    memcpy(&x, p, sizeof x);
    return x;
}
inline Ints load(const int32_t* p) {
    Ints x;
    memcpy(&x, p, sizeof x);
    return x;
}
inline void store(float* p, Floats x) { memcpy(p, &x, sizeof x); }
inline void store(int32_t* p, Ints x) { memcpy(p, &x, sizeof x); }
inline Floats splat(float x) { return {RawFloats{x, x, x, x}}; }
inline Ints splat(int32_t x) { return {RawInts{x, x, x, x}}; }
inline Ints count_up() { return {RawInts{0, 1, 2, 3}}; }

template <class F>
inline Floats each(Floats a, F f) {
    return {RawFloats{f(a.v[0]), f(a.v[1]), f(a.v[2]), f(a.v[3])}};
}

inline Floats operator+(Floats a, Floats b) { return {a.v + b.v}; }
inline Floats operator-(Floats a, Floats b) { return {a.v - b.v}; }
inline Floats operator*(Floats a, Floats b) { return {a.v * b.v}; }
inline Floats operator/(Floats a, Floats b) { return {a.v / b.v}; }
// a * b + c, with one rounding or with two. Only products use it, because their roundings may differ between instruction sets.
inline Floats fused(Floats a, Floats b, Floats c) { return {a.v * b.v + c.v}; }
inline Floats root(Floats a) {
    return each(a, [](float x) { return sqrtf(x); });
}
inline Floats smaller(Floats a, Floats b) { return {a.v < b.v ? a.v : b.v}; }
inline Floats larger(Floats a, Floats b) { return {a.v > b.v ? a.v : b.v}; }
inline Floats whole_part(Floats a) {
    return each(a, [](float x) { return floorf(x); });
}
inline Floats nearest_even(Floats a) {
    return each(a, [](float x) { return rintf(x); });
}

inline RawWords words(Ints a) { return reinterpret_cast<RawWords>(a.v); }
inline Ints ints(RawWords a) { return {reinterpret_cast<RawInts>(a)}; }
inline Ints operator+(Ints a, Ints b) { return ints(words(a) + words(b)); }
inline Ints operator-(Ints a, Ints b) { return ints(words(a) - words(b)); }
inline Ints operator*(Ints a, Ints b) { return ints(words(a) * words(b)); }
inline Ints operator&(Ints a, Ints b) { return {a.v & b.v}; }
inline Ints operator|(Ints a, Ints b) { return {a.v | b.v}; }
inline Ints operator^(Ints a, Ints b) { return {a.v ^ b.v}; }
inline Ints smaller(Ints a, Ints b) { return {a.v < b.v ? a.v : b.v}; }
inline Ints larger(Ints a, Ints b) { return {a.v > b.v ? a.v : b.v}; }
template <int N>
inline Ints shift_left(Ints a) {
    return ints(words(a) << N);
}
template <int N>
inline Ints shift_right(Ints a) {  // unsigned
    return ints(words(a) >> N);
}
inline Ints shift_right_signed(Ints a, int n) { return {a.v >> n}; }

// Unsigned 16-bit integers, two in each lane. Sums and differences are modulo 2^16; of products the upper 16 bits remain.
typedef uint16_t Raw16 __attribute__((vector_size(16)));
inline Raw16 words16(Ints a) { return reinterpret_cast<Raw16>(a.v); }
inline Ints ints(Raw16 a) { return {reinterpret_cast<RawInts>(a)}; }
inline Ints splat16(int x) { return splat(static_cast<int32_t>(0x10001u * (x & 0xFFFFu))); }
inline Ints add16(Ints a, Ints b) { return ints(words16(a) + words16(b)); }
inline Ints subtract16(Ints a, Ints b) { return ints(words16(a) - words16(b)); }
inline Ints high_product16(Ints a, Ints b) {
    const RawWords low = (words(a) & 0xFFFFu) * (words(b) & 0xFFFFu), high = (words(a) >> 16) * (words(b) >> 16);
    return ints(low >> 16 | (high & 0xFFFF0000u));
}
inline Ints shift_right16(Ints a, int n) { return ints(words16(a) >> static_cast<uint16_t>(n)); }

inline Ints bits_of(Floats a) { return {reinterpret_cast<RawInts>(a.v)}; }
inline Floats floats_of(Ints a) { return {reinterpret_cast<RawFloats>(a.v)}; }
inline Floats to_floats(Ints a) { return {__builtin_convertvector(a.v, RawFloats)}; }
inline Ints to_nearest(Floats a) { return {__builtin_convertvector(nearest_even(a).v, RawInts)}; }
inline Floats gather(const float* table, Ints index) {
    return {RawFloats{table[index.v[0]], table[index.v[1]], table[index.v[2]], table[index.v[3]]}};
}

inline Mask operator<(Floats a, Floats b) { return {a.v < b.v}; }
inline Mask operator>(Floats a, Floats b) { return {a.v > b.v}; }
inline Mask operator==(Floats a, Floats b) { return {a.v == b.v}; }
inline Mask operator!=(Floats a, Floats b) { return {a.v != b.v}; }
inline Mask operator==(Ints a, Ints b) { return {a.v == b.v}; }
inline Mask operator>(Ints a, Ints b) { return {a.v > b.v}; }
inline Mask negative(Floats a) { return {bits_of(a).v < 0}; }
inline Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
inline Ints choose(Mask m, Ints yes, Ints no) { return {(m.v & yes.v) | (~m.v & no.v)}; }
inline Floats choose(Mask m, Floats yes, Floats no) { return floats_of(choose(m, bits_of(yes), bits_of(no))); }
inline Floats where(Mask m, Floats yes) { return floats_of({m.v & bits_of(yes).v}); }  // else 0
inline Ints minus_one(Mask m) { return {m.v}; }                                         // else 0
inline Ints count(Ints n, Mask m) { return n - minus_one(m); }  // n + 1 where m
inline unsigned flags(Mask m) {                                                         // bit i: lane i
    return static_cast<unsigned>((m.v[0] & 1) | (m.v[1] & 2) | (m.v[2] & 4) | (m.v[3] & 8));
}

inline Ints widen(const uint8_t* p) { return {RawInts{p[0], p[1], p[2], p[3]}}; }
inline void narrow(uint8_t* p, Ints x) {  // the low bytes
    for (int i = 0; i < LANES; ++i) p[i] = static_cast<uint8_t>(x.v[i]);
}

// The signs of the weights i .. i + LANES - 1 of a plane, at bit 31 of each lane; and x multiplied by these signs.
inline Ints load_signs(const uint8_t* plane, int i) {
    uint32_t byte = plane[i >> 3] >> (i & 4);
    return ints(RawWords{byte << 31, byte << 30, byte << 29, byte << 28} & 0x80000000u);
}
inline Floats with_signs(Floats x, const uint8_t* plane, int i) { return floats_of(bits_of(x) ^ load_signs(plane, i)); }

// Compares 32 bytes. Bit i is set where byte i is equal.
inline uint32_t equal_bytes(const uint8_t* a, const uint8_t* b) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(a[i] == b[i]) << i;
    return bits;
}

// Stores the codes of a group, clamped to 0 .. last: the low bytes, and the high bytes unless `high` is null.
inline void store_codes(const Ints* k, int last, uint8_t* low, uint8_t* high) {
    for (int i = 0; i < 32; i += LANES, ++k) {
        const Ints code = smaller(larger(*k, splat(0)), splat(last));
        narrow(low + i, code);
        if (high) narrow(high + i, shift_right<8>(code));
    }
}

}  // namespace
