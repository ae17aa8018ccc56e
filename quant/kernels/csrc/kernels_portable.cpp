#include "compiled.h"

const Kernels kernels_portable = compiled_kernels;
