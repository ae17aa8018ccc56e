#include "compiled.h"

const Kernels kernels_avx512 = compiled_kernels;
