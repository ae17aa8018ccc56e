"""Products with few rows, straight from the codes, which take most of the time of generation.

A layer whose input is one vector uses each weight once, and decoding the weight into memory first costs many times
that. So where nothing is differentiated, `lognet.quant.kernels.codes.linear` multiplies by the codes as it reads
them, if there is a back end for it. Otherwise the caller decodes and multiplies, which is also the specification.

A graph of torch.compile calls the operator ``lognet::linear`` for it, unless the graph serves any number of rows.

The kernel sums in float32, in an order that depends on the number of columns alone, not on the number of threads or
rows (`linear` has the bound of its roundings). With bfloat16 inputs it rounds once, at the end. The caller's way rounds
the weights to bfloat16 first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..quant.kernels.codes import Codes, linear
from ..quant.kernels.native import plain
from ..quant.tracing import is_eager, tracing
from .autograd import differentiated
from .floats import decode
from .log_tensor import LogTensor

FEW_ROWS = 16
"""The largest number of rows for which this is faster: four rows share the decoding of a weight, and more rows repeat it."""


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """``x @ weight.T + bias`` from the codes, or None where the caller must decode and multiply.

    Args:
        x: (*, in_features), plain, float32 or bfloat16, of at most `FEW_ROWS` rows.
        weight: a whole LogTensor (out_features, in_features) of x's dtype, without a mask.
        bias: (out_features,), a LogTensor or plain.
    """
    # In a graph x stands for a plain tensor, or for a DTensor, which has rules for torch's own operations only.
    plain_x = type(x) is Tensor or (tracing() and not is_traceable_wrapper_subclass(x))
    if not (plain_x and isinstance(weight, LogTensor) and weight.is_whole):
        return None
    with torch._C.DisableTorchFunctionSubclass():  # because every look at the shape of a LogTensor would call it
        shape, storage, dtype = weight.shape, weight._storage, x.dtype
        if not (
            len(shape) == 2
            and x.shape[-1:] == shape[1:]
            and type(batch := math.prod(x.shape[:-1])) is int  # a graph for any number of rows must not depend on it
            and batch <= FEW_ROWS
            and dtype == weight.dtype
            and dtype in (torch.float32, torch.bfloat16)
            and (bias is None or (bias.dim() == 1 and bias.dtype == dtype))
            and storage.keep is None
            and not differentiated(x, weight, bias)
        ):
            return None
        added = None if bias is None else _added(bias, shape[0])
        x = x if dtype == torch.float32 else x.to(torch.float32)
        y = linear.kernel(x, *storage.codes, shape[0], *(() if added is None else (added,)))
        if y is NotImplemented:
            return None
        if bias is not None and added is None:
            y = y + decode(bias)
        return y if dtype == torch.float32 else y.to(dtype)


def _added(bias: Tensor, length: int) -> Tensor | Codes | None:
    """The bias as the kernel adds it, from floats or from codes; None where it is added afterwards, as in all graphs."""
    if bias.dtype != torch.float32 or len(bias) != length or not is_eager():
        return None
    if not isinstance(bias, LogTensor):
        return bias if plain(bias) else None
    storage = bias._storage
    return storage.codes if bias.is_whole and storage.keep is None and plain(storage.low) else None


def few_columns(weight: Tensor, x: Tensor) -> Tensor | None:
    """``weight @ x`` likewise, for a vector x or a matrix of few columns."""
    if x.dim() not in (1, 2):
        return None
    y = few_rows(x.mT if x.dim() == 2 else x, weight)
    return y.mT if y is not None and x.dim() == 2 else y


def stored(matrix: Tensor) -> Tensor | None:
    """The whole LogTensor whose transpose `matrix` is, or None."""
    if not isinstance(matrix, LogTensor) or matrix.dim() != 2 or matrix.is_whole:
        return None
    other = matrix.detach().t()
    if not (isinstance(other, LogTensor) and other.is_whole):
        return None
    return other.requires_grad_(matrix.requires_grad)
