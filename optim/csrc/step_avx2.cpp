#include "step.h"

const StepKernels step_kernels_avx2 = {all_below, step};
