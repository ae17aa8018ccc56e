"""Embeddings that decode only the rows that are looked up."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .autograd import in_transform
from .few_rows import FEW_ROWS
from .floats import decode, dense
from .handlers import handles_function
from .log_tensor import LogTensor

aten = torch.ops.aten


class _Embedding(Function):
    """Rows of the weight. The graph keeps the indices alone: the gradient needs no weight."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, weight: LogTensor, padding_idx: int, scale_grad_by_freq: bool) -> Tensor:
        ctx.padding_idx, ctx.scale_grad_by_freq, ctx.num_embeddings = padding_idx, scale_grad_by_freq, weight.shape[0]
        ctx.save_for_backward(index)
        rows = _rows(weight, index)
        return aten._unsafe_view(rows, rows.shape)  # so that the result is no view, of which FSDP2 warns

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        counted = (ctx.num_embeddings, ctx.padding_idx, ctx.scale_grad_by_freq)
        return None, aten.embedding_dense_backward(grad, index, *counted), None, None


@handles_function(F.embedding)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`torch.nn.functional.embedding` for a LogTensor weight. Gradients are dense.

    Args:
        input: the indices, int32 or int64, any shape (*).
        weight: (num_embeddings, embedding_dim).
        padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse: as in torch.

    Raises:
        ValueError: `sparse=True` (LogTensors have dense gradients), `padding_idx` outside the table, or a weight that
            is not two-dimensional.
        TypeError: indices that are not int32 or int64.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight must be two-dimensional, got shape {tuple(weight.shape)}")
    if input.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"embedding indices must be int32 or int64, got {input.dtype}; use input.long()")
    if sparse:
        raise ValueError(
            "sparse=True is not supported with a LogTensor weight, whose gradients are dense; use sparse=False"
        )
    if padding_idx is None:
        padding_idx = -1
    else:
        if not -weight.shape[0] <= padding_idx < weight.shape[0]:
            raise ValueError(f"padding_idx must lie within num_embeddings={weight.shape[0]}, got {padding_idx}")
        padding_idx %= weight.shape[0]
    if max_norm is not None:
        with torch.no_grad():
            aten.embedding_renorm_(weight, input.contiguous().view(-1), max_norm, norm_type)
    if in_transform():
        return F.embedding(input, dense(weight), padding_idx, scale_grad_by_freq=scale_grad_by_freq)
    return _Embedding.apply(input, weight, padding_idx, scale_grad_by_freq)


@handles_function(torch.embedding)
def _aten_embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """The same, with the arguments in another order and -1 for no padding."""
    return embedding(indices, weight, None if padding_idx < 0 else padding_idx, None, 2.0, scale_grad_by_freq, sparse)


def _rows(weight: LogTensor, index: Tensor) -> Tensor:
    """weight[index]. It decodes only those rows, unless there are as many indices as rows."""
    outside = ((index < 0) | (index >= weight.shape[0])).any()
    message = f"index out of range: embedding indices must lie in 0 .. {weight.shape[0] - 1}"
    if tracing():
        torch._assert_async(~outside, message)
    elif not index.is_meta and bool(outside):
        raise IndexError(message)
    storage, rows, columns = weight._storage, *weight.shape
    if not tracing() and storage.low.is_cpu:
        if index.numel() >= rows:  # to decode the whole table once is less work
            return decode(weight)[index]
        if 0 < index.numel() <= FEW_ROWS and weight.is_whole and columns % 8 == 0 and storage.keep is None:
            found = [storage.decode(weight.dtype, i * columns, columns) for i in index.flatten().tolist()]
            return torch.cat(found).view(*index.shape, columns)
    row, column = weight.stride()
    positions = index.long().unsqueeze(-1) * row + torch.arange(0, columns * column, column, device=index.device)
    return storage.decode_at(positions + int(weight.storage_offset()), weight.dtype)
