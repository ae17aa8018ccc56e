#include "step.h"

const StepKernels step_kernels_portable = {all_below, step};
