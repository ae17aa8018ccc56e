// Work divided among threads.
//
// torch has a pool of threads already, of the OpenMP that it was built with. A second pool would spin against it, so
// this library links no OpenMP: it is handed torch's GOMP_parallel, which every OpenMP of Linux exports, or nothing,
// and then it runs on the calling thread.
#pragma once
#include <stdint.h>

typedef void (*ParallelFn)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// Calls item(context, i) for i in 0 .. items - 1, in any order, on up to `threads` threads.
void run_parallel(int64_t items, int threads, void (*item)(void*, int64_t), void* context);

template <class Body>
void parallel_for(int64_t items, int threads, Body& body) {
    run_parallel(items, threads, [](void* context, int64_t i) { (*static_cast<Body*>(context))(i); }, &body);
}
