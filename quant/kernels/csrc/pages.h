// Large pages for large results.
//
// The system hands out fresh memory page by page as it is first written, and for pages of 4 KiB that takes several times
// as long as decoding does. glibc's malloc gives blocks of 32 MiB and more fresh mappings of their own, and hands them back whole
// when they are freed: so for these, and for no others, larger pages are asked for. Where they are `never` to be had, or not this
// system's, nothing changes.
#pragma once
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr int64_t OWN_MAPPING = 32 << 20;

// Memory that is about to be written, all of it: no page reaches beyond it.
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
