// Averages in few bits: quant/block_format.py, a block at a time.
#pragma once
#include "ladder/codes.h"
#include "ladder/positions.h"
#include "ladder/random.h"
#include "simd/simd.h"

namespace {

#if defined(__AVX512F__)

// The levels of the codes of a group. Codes of 8 bits have three bits of fraction and four or five of octave; codes of 4 bits
// are octaves.
template <int BITS, bool SIGNED>
class LevelTable {
   public:
    explicit LevelTable(const float* table) {
        alignas(64) float levels[16];
        for (int i = 0; i < 16; ++i) levels[i] = table[BITS == 8 ? i % 8 : i];
        levels_ = _mm512_load_ps(levels);
    }

    void operator()(const uint8_t* codes, Floats* out) const {
        for (int i = 0; i < GROUP; i += LANES) {
            const Ints code = widen(codes + i);
            Floats level = {_mm512_permutexvar_ps(code.v, levels_)};  // uses the lower four bits
            if (BITS == 8) {
                level = floats_of(bits_of(level) - shift_left<20>(code & splat(SIGNED ? 0x78 : 0xF8)));
                if (SIGNED) {
                    level = choose((code & splat(127)) == splat(127), splat(0.0f), level);
                    level = flip(level, shift_left<24>(code & splat(128)));
                }
            }
            *out++ = level;
        }
    }

   private:
    __m512 levels_;
};

#elif defined(__AVX2__)

// The same, with the four bytes of the floats in tables of their own.
template <int BITS, bool SIGNED>
class LevelTable {
   public:
    explicit LevelTable(const float* table) {
        float levels[16];
        for (int i = 0; i < 16; ++i) levels[i] = table[BITS == 8 ? i % 8 : i];
        for (int part = 0; part < 4; ++part) part_[part] = byte_table(levels, part, BITS == 8 ? 0x007FFFFF : 0xFFFFFFFF);
    }

    void operator()(const uint8_t* codes, Floats* out) const {
        const Bytes code = _mm256_permutevar8x32_epi32(load_bytes(codes), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
        Bytes b0 = _mm256_setzero_si256(), b1 = b0, b2, b3;
        if (BITS == 8) {
            const Bytes k = SIGNED ? _mm256_and_si256(code, all(127)) : code, fraction = _mm256_and_si256(k, all(7));
            b0 = _mm256_shuffle_epi8(part_[0], fraction);
            b1 = _mm256_shuffle_epi8(part_[1], fraction);
            const Bytes octaves = _mm256_and_si256(_mm256_srli_epi16(k, 3), all(31));
            const Bytes whole = _mm256_cmpeq_epi8(fraction, _mm256_setzero_si256());
            const Bytes exponent = _mm256_sub_epi8(_mm256_sub_epi8(all(126), octaves), whole);
            b2 = _mm256_or_si256(_mm256_shuffle_epi8(part_[2], fraction),
                                 _mm256_and_si256(_mm256_slli_epi16(exponent, 7), all(0x80)));
            b3 = _mm256_and_si256(_mm256_srli_epi16(exponent, 1), all(127));
            if (SIGNED) {
                const Bytes zero = _mm256_cmpeq_epi8(k, all(127));
                b0 = _mm256_andnot_si256(zero, b0), b1 = _mm256_andnot_si256(zero, b1);
                b2 = _mm256_andnot_si256(zero, b2), b3 = _mm256_andnot_si256(zero, b3);
                b3 = _mm256_or_si256(b3, _mm256_and_si256(code, all(0x80)));
            }
        } else {
            b2 = _mm256_shuffle_epi8(part_[2], code);
            b3 = _mm256_shuffle_epi8(part_[3], code);
        }
        __m256 floats[4];
        interleave(b0, b1, b2, b3, floats);
        for (int j = 0; j < 4; ++j) out[j] = {floats[j]};
    }

   private:
    Bytes part_[4];
};

#else

template <int BITS, bool SIGNED>
class LevelTable {
   public:
    explicit LevelTable(const float* table) : table_(table) {}
    void operator()(const uint8_t* codes, Floats* out) const {
        for (int i = 0; i < GROUP; i += LANES) *out++ = gather(table_, widen(codes + i));
    }

   private:
    const float* table_;
};

#endif

// The codes of a block, unpacked. 4 and 8 bits: a byte each.
template <int BITS, bool SIGNED>
class BlockCodes {
   public:
    explicit BlockCodes(const float* table) : table_(table) {}

    void load(const void* codes, int64_t count, int64_t begin, int n) {
        unpack_bytes(static_cast<const uint8_t*>(codes), BITS, count, begin, n, bytes_);
    }
    void save(void* codes, int64_t begin, int n) {
        memset(bytes_ + n, 0, BLOCK - n);
        pack_bytes(bytes_, BITS, begin, n, static_cast<uint8_t*>(codes));
    }
    void levels(int i, Floats* out) const { table_(bytes_ + i, out); }
    void set(int i, const Ints* codes) { store_codes(codes, 255, bytes_ + i, nullptr); }

   private:
    LevelTable<BITS, SIGNED> table_;
    alignas(64) uint8_t bytes_[BLOCK] = {};
};

// 16 bits: stored as signed integers, less 2^15.
template <bool SIGNED>
class BlockCodes<16, SIGNED> {
   public:
    explicit BlockCodes(const float* table) : table_(table) {}

    void load(const void* codes, int64_t, int64_t begin, int n) {
        const int16_t* at = static_cast<const int16_t*>(codes) + begin;
        for (int i = 0; i < n; ++i) codes_[i] = at[i] + 32768;
    }
    void save(void* codes, int64_t begin, int n) const {
        int16_t* at = static_cast<int16_t*>(codes) + begin;
        for (int i = 0; i < n; ++i) at[i] = static_cast<int16_t>(codes_[i] - 32768);
    }
    void levels(int i, Floats* out) const {
        for (int at = i; at < i + GROUP; at += LANES) *out++ = gather(table_, ::load(codes_ + at));
    }
    void set(int i, const Ints* codes) {
        for (int at = i; at < i + GROUP; at += LANES) store(codes_ + at, *codes++);
    }

   private:
    const float* table_;
    alignas(64) int32_t codes_[BLOCK] = {};
};

// An average: `levels` reads its numbers in units of the block's scale, and `encode` writes new ones.
template <int BITS, bool SIGNED>
class Average : public BlockCodes<BITS, SIGNED> {
   public:
    Average(const Levels& levels, uint64_t key, int64_t first)
        : BlockCodes<BITS, SIGNED>(levels.table),
          words_(key, first / 2),
          positions_(levels.spacing),
          lowest_(splat(levels.lowest)),
          last_(splat(levels.last)) {}

    // Encodes the first `n` of `units`, in whole groups. The loops are short for the reason that AffineMove states.
    void encode(int n, const float* units) {
        alignas(64) float corrections[BLOCK];
        for (int i = 0; i < whole_groups(n); i += LANES) {
            store(corrections + i, positions_.correction(absolute(load(units + i))));
        }
        RandomWords draw = words_;
        for (int at = 0; at < n; at += GROUP) {
            Ints words[WORDS], offsets[WORDS], codes[VECTORS];
            for (int j = 0; j < WORDS; ++j) offsets[j] = positions_.offsets(words[j] = draw.draw());
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                const Floats unit = load(units + at + v * LANES), size = absolute(unit);
                const Ints position = positions_(size, load(corrections + at + v * LANES)) + bits16(offsets, v);
                codes[v] = smaller(larger(positions_.rungs(position), splat(0)), last_);
                if (SIGNED) {
                    const Ints zero = minus_one(size < uniform(bits16(words, v)) * lowest_) & (last_ + splat(1));
                    const Ints negative = minus_one(unit < splat(0.0f)) & splat(1 << (BITS - 1));
                    codes[v] = codes[v] | zero | negative;
                }
            }
            this->set(at, codes);
        }
        words_ = draw;
    }

   private:
    RandomWords words_;
    const Positions positions_;
    const Floats lowest_;
    const Ints last_;
};

}  // namespace
