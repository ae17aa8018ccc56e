#include "simd_portable.h"
// simd_*.h before all others
#include "kernels.h"

const Kernels* kernels_portable() { return &all_kernels; }
