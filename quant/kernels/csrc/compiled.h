// The kernels, compiled for the instruction set of the file that includes this one.
#pragma once
#include "kernels.h"
#include "ladder/encode.h"
#include "ladder/read.h"
#include "product/product.h"

namespace {

constexpr Kernels compiled_kernels = {decode, unpack, unpack_codes, product, pack, encode};

}  // namespace
