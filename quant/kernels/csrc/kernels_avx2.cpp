#ifndef LOGNET_PORTABLE_ONLY
#include "simd_avx2.h"
// simd_*.h before all others
#include "kernels.h"

const Kernels* kernels_avx2() { return &all_kernels; }
#endif
