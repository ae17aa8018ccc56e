// Loops on several threads.
//
// torch already has a pool of threads, of the OpenMP that it was built with, and a second pool would compete with it for the
// processor. So this library does not link OpenMP. Python passes it torch's GOMP_parallel, which every OpenMP on Linux
// exports. Without that function all work runs on the calling thread.
#pragma once
#include <stdint.h>

typedef void (*ParallelFn)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// Calls item(context, i) for i in 0 .. items - 1, in any order, on up to `threads` threads.
void run_parallel(int64_t items, int threads, void (*item)(void*, int64_t), void* context);

template <class Body>
void parallel_for(int64_t items, int threads, Body& body) {
    run_parallel(items, threads, [](void* context, int64_t i) { (*static_cast<Body*>(context))(i); }, &body);
}
