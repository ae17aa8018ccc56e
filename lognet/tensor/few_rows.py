"""Products with few rows, straight from the codes: what generation spends its time on.

A layer whose input is one vector uses each weight once; decoding it into memory first costs many times that. So where
nothing is to be differentiated, the native kernels multiply by the codes as they read them. The plain form of it, for
every other case and the one that says what is right, is to decode and multiply.

A graph of torch.compile calls the operation ``lognet::linear`` for it, unless it is to serve any number of rows.

The kernel sums in float32, in an order of its own that depends on the number of columns alone: not on the number of
threads, not on how many rows there are. It differs from the plain form by roundings only, at most ``(columns + 8) * 2^-24``
of the sum of the sizes of the products. With bfloat16 inputs it multiplies by the weights as they are and rounds once, at
the end, where the plain form rounds the weights to bfloat16 first.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..quant import operators
from ..quant.kernels import native
from ..quant.log_format import LogFormat
from .autograd import in_transform
from .floats import decode
from .log_tensor import LogTensor
from .storage import LogStorage

FEW_ROWS = 16
"""The largest number of rows that pays: four of them share the decoding of a weight, and beyond that it is done again."""
_DTYPES = (torch.float32, torch.bfloat16)


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """``x @ weight.T + bias`` from the codes; None where that is not to be had, and the caller decodes and multiplies.

    Args:
        x: (*, in_features), plain, float32 or bfloat16, on the CPU, of at most `FEW_ROWS` rows.
        weight: a whole LogTensor (out_features, in_features) of x's dtype, without a mask.
        bias: (out_features,), a LogTensor or plain.
    """
    if not (isinstance(weight, LogTensor) and weight.is_whole and (type(x) is Tensor or _plain_in_graph(x))):
        return None
    with torch._C.DisableTorchFunctionSubclass():  # which every look at the shape of a LogTensor would call
        return _few_rows(x, weight, bias)


def _plain_in_graph(x: Tensor) -> bool:
    """Whether torch.compile's stand-in for a plain tensor; not one for a DTensor, which has rules for torch's operations only."""
    return operators.wanted(x) and not is_traceable_wrapper_subclass(x)


def _few_rows(x: Tensor, weight: LogTensor, bias: Tensor | None) -> Tensor | None:
    shape, leading, storage, dtype = weight.shape, x.shape[:-1], weight._storage, x.dtype
    if not (
        len(shape) == 2
        and x.shape[-1:] == shape[1:]
        and type(batch := math.prod(leading)) is int  # a graph for any number of rows must not depend on it
        and batch <= FEW_ROWS
        and dtype == weight.dtype
        and dtype in _DTYPES
        and (bias is None or (bias.dim() == 1 and bias.dtype == dtype))
        and storage.keep is None
        and x.is_cpu
        and not differentiated(x, weight, bias)
    ):
        return None
    if native.serves(storage.low):  # the planes are all of a kind
        y = _at_once(x, storage, shape, batch, bias)
    elif operators.wanted(storage.low):
        y = _in_graph(x.reshape(batch, shape[1]), storage, shape[0], bias)
    else:
        return None
    return (y if dtype == torch.float32 else y.to(dtype)).view(*leading, shape[0])


def _at_once(x: Tensor, storage: LogStorage, shape: torch.Size, batch: int, bias: Tensor | None) -> Tensor:
    """The product by the kernel, which adds the bias as well."""
    rows = x if x.dtype == torch.float32 and x.is_contiguous() else x.to(torch.float32).contiguous()
    added = None if bias is None else _added(bias, shape[0])
    y = native.product(*_codes(storage), _ladder(storage.format)[1], (shape[0], shape[1]), rows, batch, added)
    return y if bias is None or added is not None else y + decode(bias)


def _in_graph(x: Tensor, storage: LogStorage, out_features: int, bias: Tensor | None) -> Tensor:
    """The product as an operation that a graph of torch.compile calls; it adds the bias to whatever comes next."""
    format, planes = storage.format, (storage.low, storage.high, storage.sign, storage.scale)
    y = operators.linear(x.to(torch.float32), *planes, format.bits, format.base_precision, out_features)
    return y if bias is None else y + decode(bias)


def _added(bias: Tensor, length: int) -> Tensor | native.Codes | None:
    """The bias as the kernel adds it, from floats or from codes; None where it is to be added afterwards."""
    if bias.dtype != torch.float32 or len(bias) != length:
        return None
    if not isinstance(bias, LogTensor):
        return bias if native.plain(bias) else None
    storage = bias._storage
    return _codes(storage) if bias.is_whole and storage.keep is None and native.plain(storage.low) else None


def _codes(storage: LogStorage) -> native.Codes:
    format = storage.format
    return storage.low, storage.high, storage.sign, format.bits, _ladder(format)[0], storage.scale


@lru_cache(maxsize=64)
def _ladder(format: LogFormat) -> tuple[Tensor, bool]:
    """The rungs in units of the scale, and whether they are 2^(bits - 3) to the octave."""
    return format.unit_rungs(torch.float32, torch.empty(0)), format.by_octaves


def few_columns(weight: Tensor, x: Tensor) -> Tensor | None:
    """``weight @ x`` likewise, for a vector x or a matrix of few columns."""
    if x.dim() not in (1, 2):
        return None
    y = few_rows(x.mT if x.dim() == 2 else x, weight)
    return y.mT if y is not None and x.dim() == 2 else y


def stored(matrix: Tensor) -> Tensor | None:
    """The whole LogTensor whose transpose `matrix` is; None if it is not one's."""
    if not isinstance(matrix, LogTensor) or matrix.dim() != 2 or matrix.is_whole:
        return None
    other = matrix.detach().t()
    if not (isinstance(other, LogTensor) and other.is_whole):
        return None
    return other.requires_grad_(matrix.requires_grad)


def differentiated(*args: Any) -> bool:
    """Whether anybody may ask for a derivative: in reverse, forwards, or by a transformation of torch.func."""
    wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
    return wanted or in_transform()
