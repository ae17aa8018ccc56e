"""Linear, convolution, embedding and matrix products whose backward pass keeps codes, not decoded weights.

Each operation decodes its LogTensors for the forward computation, lets the dense values go, saves the LogTensors
themselves (B + 1 bits a weight) and decodes again when the gradient is asked for. The gradient is that of the same
operation on the dequantised weight: decoding is the identity as far as gradients are concerned.

Called as ``torch.nn.functional.linear(x, weight)`` and the like, these replace torch's own whenever a LogTensor is
among the arguments; that is how every torch.nn module computes with LogTensor parameters unchanged.

`dense` decodes any tensor that is a LogTensor and passes on the others. In the shapes below, `*` is any number of
leading dimensions. A structured layer, whose parameter is not itself what multiplies, gives a `Form`: a linear
rearrangement of the decoded weight, redone with the decoding in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .few_rows import FEW_ROWS, few_columns, few_rows, stored
from .log_tensor import LogTensor, decode, implements, in_transform
from .recompute import Form, Steps, autocast_dtype, collapsed, dense, formed, in_form, recomputed

__all__ = ["Form", "Steps", "conv", "conv_transpose", "dense", "embedding", "in_form", "linear", "matmul", "recomputed"]

aten = torch.ops.aten
Size = int | Sequence[int]


def _autocast(*tensors: Any) -> Any:
    """Under torch.autocast, the tensors in its dtype, as torch's own linear and convolution have them.

    For a LogTensor that changes only the dtype in which it decodes.
    """
    if not torch._C._is_any_autocast_enabled():
        return tensors
    dtype = autocast_dtype(next(t.device for t in tensors if t is not None))
    if dtype is None:
        return tensors
    return tuple(t.to(dtype) if t is not None and t.dtype in _AUTOCAST_FROM else t for t in tensors)


_AUTOCAST_FROM = (torch.float32, torch.float16, torch.bfloat16)  # float64 stays, as in torch


class _Linear(Function):
    """y = x W^T + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None) -> Tensor:
        ctx.form, ctx.has_bias = form, bias is not None
        ctx.save_for_backward(x, weight)
        return F.linear(dense(x), formed(weight, form), None if bias is None else dense(bias))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        rows = _rows_of(grad)  # once: it copies a transposed gradient
        if ctx.needs_input_grad[0]:
            grad_x = (rows @ formed(weight, ctx.form).conj()).view(x.shape)  # complex where the form is
        if ctx.needs_input_grad[1]:
            # (g^H x)* rather than g^T x*: matrix products take a conjugate transpose without a copy, a conjugate not
            grad_weight = collapsed((rows.mH @ _rows_of(dense(x))).conj(), weight, ctx.form)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias, None


def _rows_of(x: Tensor) -> Tensor:
    """All but the last dimension as one; reshape(-1, length) cannot tell how many where the length is 0."""
    return x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)


class _Convolution(Function):
    """Every convolution of torch.nn.functional, transposed or not, through one aten operation and its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None, *geometry: Any) -> Tensor:
        ctx.form, ctx.geometry = form, geometry
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else list(bias.shape)
        return aten.convolution(dense(x), formed(weight, form), None if bias is None else dense(bias), *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = [
            ctx.needs_input_grad[0],
            ctx.needs_input_grad[1],
            ctx.bias_shape is not None and ctx.needs_input_grad[2],
        ]
        kernel = formed(weight, ctx.form)
        grad_x, grad_weight, grad_bias = aten.convolution_backward(
            grad, dense(x), kernel, ctx.bias_shape, *ctx.geometry, wanted
        )
        if wanted[1]:
            grad_weight = collapsed(grad_weight, weight, ctx.form)
        return grad_x, grad_weight, grad_bias, None, *(None for _ in ctx.geometry)


class _Embedding(Function):
    """Rows of the weight; only those looked up are decoded, unless they are as many as there are."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, weight: LogTensor, padding_idx: int, scale_grad_by_freq: bool) -> Tensor:
        ctx.padding_idx, ctx.scale_grad_by_freq, ctx.num_embeddings = padding_idx, scale_grad_by_freq, weight.shape[0]
        ctx.save_for_backward(index)
        rows = _rows(weight, index)
        return aten._unsafe_view(rows, rows.shape)  # no view of anything a caller can see: FSDP2 warns of views

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        grad_weight = aten.embedding_dense_backward(
            grad, index, ctx.num_embeddings, ctx.padding_idx, ctx.scale_grad_by_freq
        )
        return None, grad_weight, None, None


class _MatMul(Function):
    """Batched matrix product with broadcasting; both sides at least two-dimensional. `form` is that of b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, form: Form | None) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(a, b)
        return torch.matmul(dense(a), formed(b, form))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if 1 not in grad.stride()[-2:]:
            grad = grad.contiguous()  # once, rather than for each product and each matrix of a batch
        if ctx.needs_input_grad[0]:
            grad_a = (grad @ formed(b, ctx.form).mT).sum_to_size(a.shape)
        if ctx.needs_input_grad[1]:
            grad_b = dense(a).mT @ grad
            grad_b = grad_b.sum_to_size(b.shape) if ctx.form is None else collapsed(grad_b, b, ctx.form)
        return grad_a, grad_b, None


@implements(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, form: Form | None = None) -> Tensor:
    """`torch.nn.functional.linear` for LogTensors: (*, in_features) to (*, out_features).

    Any of the three may be a LogTensor; weight is (out_features, in_features), or of any shape from which `form`
    makes that; bias (out_features,).

    >>> w = LogTensor.from_float(torch.tensor([[1.0, 0.5]]))
    >>> linear(torch.tensor([2.0, 2.0]), w)
    tensor([3.])
    """
    input, weight, bias = _autocast(input, weight, bias)
    if form is None and (product := few_rows(input, weight, bias)) is not None:
        return product
    weight, form = in_form(weight, form)
    if not input.is_complex() and not any(isinstance(t, LogTensor) for t in (input, weight, bias)):
        return F.linear(input, weight, bias)
    if in_transform() or (form is None and weight.dim() != 2):
        return F.linear(dense(input), formed(weight, form), None if bias is None else dense(bias))
    return _Linear.apply(input, weight, bias, form)


@implements(F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    form: Form | None = None,
) -> Tensor:
    """`torch.nn.functional.conv1d`, `conv2d` and `conv3d` for LogTensors, same arguments; string paddings too.

    Args:
        input: (batch, in_channels, *) or unbatched.
        weight: (out_channels, in_channels / groups, *kernel), which says over how many dimensions; or one
            dimension more, from which `form` makes that.
        bias: (out_channels,).
    """
    if padding == "same":
        over = _over(weight, form)
        if any(step != 1 for step in _tuple(stride, over)):
            raise ValueError(f"padding='same' needs stride 1, got {stride}")
        total = [d * (k - 1) for d, k in zip(_tuple(dilation, over), weight.shape[2 : 2 + over], strict=True)]
        if any(t % 2 for t in total):  # an even kernel: the odd one goes behind
            input = F.pad(dense(input), [side for t in reversed(total) for side in (0, t % 2)])
        padding = [t // 2 for t in total]
    elif padding == "valid":
        padding = 0
    elif isinstance(padding, str):
        raise ValueError(f"padding must be numbers, 'same' or 'valid', got {padding!r}")
    return _convolve(input, weight, bias, stride, padding, dilation, False, 0, groups, form)


@implements(
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
)
def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    form: Form | None = None,
) -> Tensor:
    """`torch.nn.functional.conv_transpose1d`, `2d` and `3d` for LogTensors, same arguments.

    Args:
        input: (batch, in_channels, *) or unbatched.
        weight: (in_channels, out_channels / groups, *kernel), which says over how many dimensions; or one
            dimension more, from which `form` makes that.
        bias: (out_channels,).
    """
    return _convolve(input, weight, bias, stride, padding, dilation, True, output_padding, groups, form)


@implements(F.embedding)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`torch.nn.functional.embedding` for a LogTensor weight; gradients are dense.

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


@implements(torch.embedding)
def _aten_embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    return embedding(indices, weight, None if padding_idx < 0 else padding_idx, None, 2.0, scale_grad_by_freq, sparse)


@implements(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None, form: Form | None = None) -> Tensor:
    """`torch.matmul` (and `bmm`, `mm`, `@`) where either side, or both, is a LogTensor; `form` is that of `other`.

    >>> w = LogTensor.from_float(torch.eye(2) + 1)
    >>> (torch.ones(2) @ w).shape
    torch.Size([2])
    """
    if out is not None:
        return torch.matmul(dense(input), dense(other), out=out)
    other, form = in_form(other, form)
    input, other = _autocast(input, other)
    if form is None and (product := _few(input, other)) is not None:
        return product
    if in_transform():
        return torch.matmul(dense(input), formed(other, form))
    if form is None and (
        input.dim() < 2 or other.dim() < 2
    ):  # matrix-vector: views of the codes make matrices of the vectors
        a = input.unsqueeze(0) if input.dim() == 1 else input
        b = other.unsqueeze(1) if other.dim() == 1 else other
        product = _MatMul.apply(a, b, None)
        product = product.squeeze(-2) if input.dim() == 1 else product
        return product.squeeze(-1) if other.dim() == 1 else product
    return _MatMul.apply(input, other, form)


def _few(input: Tensor, other: Tensor) -> Tensor | None:
    """`matmul` from the codes, where either side is a weight and the other has few rows or columns."""
    if isinstance(input, LogTensor):
        return few_columns(input, other)
    transposed = stored(other)
    return None if transposed is None else few_rows(input, transposed)


@implements(torch.mv, torch.Tensor.mv)
def _mv(input: Tensor, vec: Tensor, **kwargs: Any) -> Tensor:
    if kwargs or (input.dim(), vec.dim()) != (2, 1):
        return torch.mv(dense(input), dense(vec), **kwargs)
    return matmul(input, vec)


@implements(torch.mm, torch.Tensor.mm)
def _mm(input: Tensor, mat2: Tensor, **kwargs: Any) -> Tensor:
    if kwargs or (input.dim(), mat2.dim()) != (2, 2):  # an output to write to, or torch's own error
        return torch.mm(dense(input), dense(mat2), **kwargs)
    return matmul(input, mat2)


@implements(torch.bmm, torch.Tensor.bmm)
def _bmm(input: Tensor, mat2: Tensor, **kwargs: Any) -> Tensor:
    if kwargs or (input.dim(), mat2.dim()) != (3, 3):
        return torch.bmm(dense(input), dense(mat2), **kwargs)
    return matmul(input, mat2)


@implements(torch.Tensor.__rmatmul__)
def _rmatmul(input: Tensor, other: Tensor) -> Tensor:
    return matmul(other, input)


def _rows(weight: LogTensor, index: Tensor) -> Tensor:
    """weight[index], decoding only those rows, or all where these are no more."""
    outside = ((index < 0) | (index >= weight.shape[0])).any()
    message = f"index out of range: embedding indices must lie in 0 .. {weight.shape[0] - 1}"
    if tracing():
        torch._assert_async(~outside, message)
    elif not index.is_meta and bool(outside):
        raise IndexError(message)
    storage, rows, columns = weight._storage, *weight.shape
    if not tracing() and storage.low.is_cpu:
        if index.numel() >= rows:  # the whole table is no more than what is asked for
            return decode(weight)[index]
        if 0 < index.numel() <= FEW_ROWS and weight._whole and columns % 8 == 0 and storage.keep is None:
            found = [storage.decode(weight.dtype, i * columns, columns) for i in index.flatten().tolist()]
            return torch.cat(found).view(*index.shape, columns)
    row, column = weight.stride()
    positions = index.long().unsqueeze(-1) * row + torch.arange(0, columns * column, column, device=index.device)
    return storage.decode_at(positions + int(weight.storage_offset()), weight.dtype)


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Any,
    dilation: Size,
    transposed: bool,
    output_padding: Size,
    groups: int,
    form: Form | None,
) -> Tensor:
    """Bring the arguments of a convolution into the form of aten.convolution."""
    weight, form = in_form(weight, form)
    input, weight, bias = _autocast(input, weight, bias)
    over = _over(weight, form)
    stride, padding, dilation, output_padding = (_tuple(v, over) for v in (stride, padding, dilation, output_padding))
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    batch = input if input.dim() == over + 2 else input.unsqueeze(0)
    if in_transform():
        y = aten.convolution(dense(batch), formed(weight, form), None if bias is None else dense(bias), *geometry)
    else:
        y = _Convolution.apply(batch, weight, bias, form, *geometry)
    return y if batch is input else y.squeeze(0)


def _over(weight: Tensor, form: Form | None) -> int:
    """Over how many dimensions a convolution with this weight goes."""
    return weight.dim() - 2 - (form is not None)


def _tuple(value: Any, over: int) -> list[int]:
    """One number for each dimension that the kernel goes over."""
    values = [value] if isinstance(value, int) else list(value)
    return values * over if len(values) == 1 else values
