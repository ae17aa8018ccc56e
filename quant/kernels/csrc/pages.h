// Large pages for large results.
//
// The system provides each page of fresh memory when it is first written. With pages of 4 KiB this takes several times as
// long as decoding. glibc's malloc maps each block of 32 MiB or more by itself and unmaps it when it is freed, so these blocks
// are always fresh. The library asks for large pages for these blocks and for no others. Where the system has no large pages,
// or its setting is `never`, nothing changes.
#pragma once
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr int64_t OWN_MAPPING = 32 << 20;

// `memory` is about to be written, all of it. No large page reaches beyond it.
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

}  // namespace
