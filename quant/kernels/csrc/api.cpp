// The functions that Python calls. They choose the instruction set and cut the work into pieces for the threads.
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels.h"
#include "parallel.h"

namespace {

ParallelFn parallel_regions = nullptr;
int level = 0;

const Kernels& chosen_kernels() {
    static const Kernels* const levels[] = LOGNET_LEVELS(kernels);
    return *levels[level];
}

struct Job {
    int64_t next, items;
    void (*item)(void*, int64_t);
    void* context;
};

void take_items(void* data) {
    Job* job = static_cast<Job*>(data);
    for (;;) {
        int64_t i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (i >= job->items) return;
        job->item(job->context, i);
    }
}

constexpr int64_t OWN_MAPPING = 32 << 20;

// Asks for large pages for memory that is about to be written, all of it. No large page reaches beyond it. The system provides
// each page of fresh memory when it is first written, which with pages of 4 KiB takes several times as long as decoding. glibc's
// malloc maps each block of 32 MiB or more by itself and unmaps it when it is freed, so that these blocks are always fresh. Where
// the system has no large pages, or its setting is `never`, nothing changes.
inline void ask_for_large_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes < OWN_MAPPING) return;
    constexpr uintptr_t PAGE = 2 << 20;
    const uintptr_t from = reinterpret_cast<uintptr_t>(memory), to = from + static_cast<uintptr_t>(bytes);
    const uintptr_t first = (from + PAGE - 1) / PAGE * PAGE;
    madvise(reinterpret_cast<void*>(first), to / PAGE * PAGE - first, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

constexpr int64_t PIECE = 1 << 15;  // weights: they fit into a second-level cache, and take much longer than starting does

// Calls body(begin, end) on pieces of [start, start + count).
template <class Body>
void in_pieces(int64_t start, int64_t count, int threads, Body body) {
    auto piece = [&](int64_t i) {
        int64_t begin = start + i * PIECE, end = begin + PIECE;
        body(begin, end < start + count ? end : start + count);
    };
    parallel_for((count + PIECE - 1) / PIECE, threads, piece);
}

}  // namespace

int chosen_level() { return level; }

void run_parallel(int64_t items, int threads, void (*item)(void*, int64_t), void* context) {
    Job job = {0, items, item, context};
    if (threads > items) threads = static_cast<int>(items);
    if (threads > 1 && parallel_regions) {
        parallel_regions(take_items, &job, static_cast<unsigned>(threads), 0);
    } else {
        take_items(&job);
    }
}

LOGNET_API const char* lognet_sources() { return LOGNET_SOURCES; }

LOGNET_API void lognet_set_parallel(ParallelFn function) { parallel_regions = function; }

// Chooses an instruction set: 0 portable, 1 AVX2, 2 AVX-512. Returns 0, and keeps the old one, where this machine or this
// build does not have it.
LOGNET_API int lognet_set_level(int wanted) {
    bool has = wanted == 0;
#ifndef LOGNET_PORTABLE_ONLY
    __builtin_cpu_init();
    if (wanted == 1) {
        has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    } else if (wanted == 2) {
        has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    if (has) level = wanted;
    return has;
}

// Values of the weights start .. start + n - 1 of a tensor of `count` weights. `rungs` has 2^bits entries.
LOGNET_API void lognet_decode(const uint8_t* low, const uint8_t* high, const uint8_t* sign, int bits,
                              const float* rungs, float scale, int64_t count, int64_t start, int64_t n, float* out,
                              int threads) {
    Planes planes = {const_cast<uint8_t*>(low), const_cast<uint8_t*>(high), const_cast<uint8_t*>(sign), bits};
    ask_for_large_pages(out, n * static_cast<int64_t>(sizeof(float)));
    in_pieces(start, n, threads, [&](int64_t begin, int64_t end) {
        chosen_kernels().decode(planes, rungs, scale, count, begin, end, out + (begin - start));
    });
}

// Values start .. start + n - 1 of a stream of `count` values of `width` bits.
LOGNET_API void lognet_unpack(const uint8_t* stream, int width, int64_t count, int64_t start, int64_t n, uint8_t* out,
                              int threads) {
    in_pieces(start, n, threads, [&](int64_t begin, int64_t end) {
        chosen_kernels().unpack(stream, width, count, begin, end, out + (begin - start));
    });
}

LOGNET_API void lognet_unpack_codes(const uint8_t* low, const uint8_t* high, int bits, int64_t count, int64_t start,
                                    int64_t n, int32_t* out, int threads) {
    Planes planes = {const_cast<uint8_t*>(low), const_cast<uint8_t*>(high), nullptr, bits};
    in_pieces(start, n, threads, [&](int64_t begin, int64_t end) {
        chosen_kernels().unpack_codes(planes, count, begin, end, out + (begin - start));
    });
}

// Packs the lowest `width` bits, at most 8, of byte number `byte` of each of `count` integers of `size` bytes.
LOGNET_API void lognet_pack(const void* values, int size, int byte, int width, int64_t count, uint8_t* stream,
                            int threads) {
    in_pieces(0, count, threads, [&](int64_t begin, int64_t end) {
        chosen_kernels().pack(values, size, byte, width, begin, end, stream);
    });
}

// Encodes finite floats: see Encoding in lognet.h.
LOGNET_API void lognet_encode(const void* values, int dtype, double scale, int bits, const double* rungs,
                              const Spacing* spacing, double least_factor, double most_factor,
                              const double* rounding_factors, uint64_t key, uint64_t sign_key, int64_t count, uint8_t* low,
                              uint8_t* high, uint8_t* sign, int threads) {
    const Encoding encoding = {values,       static_cast<Dtype>(dtype), scale, rungs,    *spacing,       least_factor,
                               most_factor,  rounding_factors,          key,   sign_key, (1 << bits) - 1};
    const Planes planes = {low, high, sign, bits};
    in_pieces(0, count, threads, [&](int64_t begin, int64_t end) {
        chosen_kernels().encode(encoding, planes, begin, end);
    });
}

// y (batch, rows) = x (batch, columns) times the transpose of the weight (rows, columns), plus a bias (rows). The bias is
// floats (`bias`), or codes (`bias_low` and the following), or absent (both null). See product/product.h.
LOGNET_API void lognet_product(const uint8_t* low, const uint8_t* high, const uint8_t* sign, int bits,
                               const float* rungs, float scale, int octaves, int64_t rows, int64_t columns,
                               const float* x, int64_t batch, const float* bias, const uint8_t* bias_low,
                               const uint8_t* bias_high, const uint8_t* bias_sign, int bias_bits,
                               const float* bias_rungs, float bias_scale, float* y, int threads) {
    Planes planes = {const_cast<uint8_t*>(low), const_cast<uint8_t*>(high), const_cast<uint8_t*>(sign), bits};
    float* to = y;
    if (!batch || !rows) return;
    if (bias_low) {
        lognet_decode(bias_low, bias_high, bias_sign, bias_bits, bias_rungs, bias_scale, rows, 0, rows, y, 1);
        bias = y;
    }
    for (int64_t m = 0; m < batch; ++m, to += rows) {
        if (!bias) memset(to, 0, rows * sizeof(float));
        else if (bias != to) memcpy(to, bias, rows * sizeof(float));
    }
    chosen_kernels().product(planes, rungs, scale, octaves, rows, columns, x, batch, y, threads);
}
