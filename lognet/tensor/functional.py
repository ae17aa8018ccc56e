"""Linear layers and matrix products whose backward pass keeps codes, not decoded weights.

Each operation decodes its LogTensors, multiplies and frees the decoded values. The graph saves the LogTensors themselves
(B + 1 bits a weight), and the backward pass decodes them again. Decoding has the identity as its derivative, so that the
gradients are those of the same product with the dequantised weight. Convolutions and embeddings (`convolution`,
`embedding`) do the same.

torch calls these functions for ``torch.nn.functional.linear(x, weight)`` and the like when one of the arguments is a
LogTensor, so that every torch.nn module computes with LogTensor parameters unchanged. Structured layers call them with a
`Form`. In the shapes below, `*` is any number of leading dimensions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .autograd import differentiated, in_autocast_dtype, in_transform
from .few_rows import few_columns, few_rows, stored
from .floats import Form, collapsed, dense, expand_floats, expanded
from .handlers import handles_function
from .log_tensor import LogTensor


class _Linear(Function):
    """y = x W^T + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None) -> Tensor:
        ctx.form, ctx.has_bias = form, bias is not None
        ctx.save_for_backward(x, weight)
        return F.linear(dense(x), expanded(weight, form), dense(bias))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        rows = _as_matrix(grad)  # once, because it copies a transposed gradient
        if ctx.needs_input_grad[0]:
            grad_x = (rows @ expanded(weight, ctx.form).conj()).view(x.shape)  # forms may be complex
        if ctx.needs_input_grad[1]:
            # (g^H x)* rather than g^T x*: torch multiplies by a conjugate transpose in place, but copies a conjugate
            grad_weight = collapsed((rows.mH @ _as_matrix(dense(x))).conj(), weight, ctx.form)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias, None


def _as_matrix(x: Tensor) -> Tensor:
    """All but the last dimension in one. reshape(-1, length) cannot tell the number of rows of length 0."""
    return x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)


@handles_function(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, form: Form | None = None) -> Tensor:
    """`torch.nn.functional.linear` for LogTensors: (*, in_features) to (*, out_features).

    Args:
        input, weight, bias: any of them a LogTensor. weight is (out_features, in_features), or of any shape from which
            `form` makes that; bias is (out_features,).
        form: how the matrix is made of the weight.

    >>> w = LogTensor.from_float(torch.tensor([[1.0, 0.5]]))
    >>> linear(torch.tensor([2.0, 2.0]), w)
    tensor([3.])
    """
    input, weight, bias = in_autocast_dtype(input, weight, bias)
    if form is None and (product := few_rows(input, weight, bias)) is not None:
        return product
    weight, form = expand_floats(weight, form)
    if not input.is_complex() and not any(isinstance(t, LogTensor) for t in (input, weight, bias)):
        return F.linear(input, weight, bias)
    if in_transform() or (form is None and weight.dim() != 2):
        return F.linear(dense(input), expanded(weight, form), dense(bias))
    return _Linear.apply(input, weight, bias, form)


class _MatMul(Function):
    """a @ b with broadcasting over batches, a and b of two dimensions or more. `form` is that of b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, form: Form | None) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(a, b)
        return torch.matmul(dense(a), expanded(b, form))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if 1 not in grad.stride()[-2:]:
            grad = grad.contiguous()  # once, rather than for each product and each matrix of a batch
        if ctx.needs_input_grad[0]:
            grad_a = (grad @ expanded(b, ctx.form).mT).sum_to_size(a.shape)
        if ctx.needs_input_grad[1]:
            grad_b = dense(a).mT @ grad
            grad_b = grad_b.sum_to_size(b.shape) if ctx.form is None else collapsed(grad_b, b, ctx.form)
        return grad_a, grad_b, None


@handles_function(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None, form: Form | None = None) -> Tensor:
    """`torch.matmul` (and ``@``) where one side or both are LogTensors. `form` says how the matrix is made of `other`.

    >>> w = LogTensor.from_float(torch.eye(2) + 1)
    >>> (torch.ones(2) @ w).shape
    torch.Size([2])
    """
    if out is not None:
        return torch.matmul(dense(input), dense(other), out=out)
    other, form = expand_floats(other, form)
    input, other = in_autocast_dtype(input, other)
    if form is None and (product := _few_vectors(input, other)) is not None:
        return product
    if in_transform():
        return torch.matmul(dense(input), expanded(other, form))
    if form is None and (input.dim() < 2 or other.dim() < 2):  # a vector becomes a matrix of one row or column
        a = input.unsqueeze(0) if input.dim() == 1 else input
        b = other.unsqueeze(1) if other.dim() == 1 else other
        product = _MatMul.apply(a, b, None)
        product = product.squeeze(-2) if input.dim() == 1 else product
        return product.squeeze(-1) if other.dim() == 1 else product
    return _MatMul.apply(input, other, form)


def _few_vectors(input: Tensor, other: Tensor) -> Tensor | None:
    """`matmul` straight from the codes, where one side is a weight and the other has few rows or columns; else None."""
    if isinstance(input, LogTensor):
        return few_columns(input, other)
    transposed = stored(other)
    return None if transposed is None else few_rows(input, transposed)


def _product(function: Any, dims: tuple[int, int], input: Tensor, *others: Tensor, **kwargs: Any) -> Tensor:
    """A product that takes operands of certain dimensions alone. torch's own gives its error, or writes to its `out`."""
    if kwargs or (input.dim(), *(x.dim() for x in others)) != dims:
        return function(dense(input), *map(dense, others), **{name: dense(x) for name, x in kwargs.items()})
    return matmul(input, *others)


for _name, _dims in {"mv": (2, 1), "mm": (2, 2), "bmm": (3, 3)}.items():
    _function = getattr(torch, _name)
    handles_function(_function, getattr(Tensor, _name))(partial(_product, _function, _dims))
handles_function(Tensor.__rmatmul__)(lambda input, other: matmul(other, input))


def _normalized(function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Layer, group or root-mean-square normalization with LogTensors for gains and biases.

    torch's own functions end in operations that decode LogTensors below autograd. That gives the same result, but takes
    several times as long as decoding a few hundred gains, and generation runs two such layers for each block and token.
    Therefore the gains are decoded first, unless a graph is traced or a gradient recorded.
    """
    with torch._C.DisableTorchFunctionSubclass():
        if not tracing() and not differentiated(*args, *kwargs.values()):
            args = tuple(map(dense, args))
            kwargs = {name: dense(x) for name, x in kwargs.items()}
        return function(*args, **kwargs)


for _function in (F.layer_norm, F.group_norm, F.rms_norm, torch.layer_norm, torch.group_norm, torch.rms_norm):
    handles_function(_function)(partial(_normalized, _function))
