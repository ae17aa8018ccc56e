"""How the library gets the floats of a tensor that may be a LogTensor.

| where | call | autograd |
|---|---|---|
| user code, which knows that w is a LogTensor | ``w.dequantize()`` | yes |
| layers and autograd functions: any tensor or None | `dense` | yes |
| handlers of operations and kernels' callers, where no gradient is recorded: any tensor | `decode` | no |
| a product by a linear map of the weight | `expanded` | yes |

All end in `LogStorage.decode`, except that an embedding reads single rows with `LogStorage.decode_at`.

A structured layer's parameter is not the matrix that multiplies. The layer's `Form` makes the matrix from the parameter. The
graph keeps the codes of the parameter, and the backward pass decodes and expands them again.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .autograd import in_transform
from .log_tensor import LogTensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, "Tensor | None")


def dense(x: MaybeTensor) -> MaybeTensor:
    """`x.dequantize()` for a LogTensor, `x` itself otherwise. Differentiable."""
    return x.dequantize() if isinstance(x, LogTensor) else x


def decode(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The values of a LogTensor in `dtype` (default: its own), `x` itself otherwise. Records no gradient."""
    return x._decode(x.dtype if dtype is None else dtype) if isinstance(x, LogTensor) else x


class Form(Protocol):
    """A linear map from a weight to the matrix or kernel that multiplies, and its adjoint; both differentiable."""

    def expand(self, weight: Tensor) -> Tensor:
        """The matrix or kernel, from the decoded weight."""
        ...

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of the weight, of `shape`, from that of the matrix or kernel."""
        ...


class CachedForm:
    """A form whose matrix is computed once for several products with the same weight, as at all time steps of a recurrence.

    The first product computes the matrix, the following ones reuse it, and the last one frees it. The backward pass
    does the same again: it, too, has `uses` products at most. If it has fewer, the matrix is freed with the graph.

    Args:
        form: computes the matrix.
        uses: the number of products in one pass, for a recurrence the number of time steps.
    """

    def __init__(self, form: Form, uses: int) -> None:
        self.form, self.uses = form, uses
        self._uses_left, self._matrix = 0, torch.empty(0)

    def matrix(self, weight: Tensor) -> Tensor:
        """The matrix of the weight, computed at the first of `uses` calls."""
        if self._uses_left == 0:
            self._uses_left, self._matrix = self.uses, self.form.expand(dense(weight))
        matrix = self._matrix
        self._uses_left -= 1
        if self._uses_left == 0:
            self._matrix = torch.empty(0)
        return matrix

    def expand(self, weight: Tensor) -> Tensor:
        return self.form.expand(weight)

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return self.form.collapse(grad, shape)


def expanded(weight: Tensor, form: Form | None) -> Tensor:
    """The dense matrix or kernel that multiplies: of any weight, and the weight's own values where there is no form."""
    if isinstance(form, CachedForm) and not tracing():  # a compiler decides itself what a graph computes once
        return form.matrix(weight)
    return dense(weight) if form is None else form.expand(dense(weight))


def collapsed(grad: Tensor, weight: Tensor, form: Form | None) -> Tensor:
    """The gradient of the weight, from that of what `expanded` gave."""
    return grad if form is None else form.collapse(grad, weight.shape)


class _Expand(Function):
    """``form.expand`` of a float weight, with ``form.collapse`` as its derivative."""

    @staticmethod
    def forward(weight: Tensor, form: Form) -> Tensor:
        return form.expand(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        weight, ctx.form = inputs
        ctx.shape = weight.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.form.collapse(grad, ctx.shape), None


def expand_floats(weight: Tensor, form: Form | None) -> tuple[Tensor, Form | None]:
    """Expand a float weight before the products, because a graph of floats may keep the matrix.

    Returns:
        The matrix and None for a float weight; a LogTensor and its form as they are.
    """
    if form is None or isinstance(weight, LogTensor):
        return weight, form
    return form.expand(weight) if in_transform() else _Expand.apply(weight, form), None
