#include "step.h"

const StepKernels step_kernels_avx512 = {all_below, step};
