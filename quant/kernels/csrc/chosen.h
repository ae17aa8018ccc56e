// The kernels of the instruction set in use.
#pragma once
#include "lognet.h"

const Kernels* chosen_kernels();
