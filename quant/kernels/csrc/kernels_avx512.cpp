#ifndef LOGNET_PORTABLE_ONLY
#include "simd_avx512.h"
// simd_*.h before all others
#include "kernels.h"

const Kernels* kernels_avx512() { return &all_kernels; }
#endif
