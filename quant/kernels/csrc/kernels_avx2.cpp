#include "compiled.h"

const Kernels kernels_avx2 = compiled_kernels;
