// All kernels for the instruction set whose simd_*.h was included before.
#pragma once
#include "encode.h"
#include "product.h"
#include "read.h"
#include "step.h"

namespace {

const Kernels all_kernels = {decode, unpack, unpack_codes, product, pack, encode, all_below, step};

}  // namespace
