"""Products by a linear map of a weight, rather than by the weight itself.

A structured layer's parameter is not the matrix that multiplies: the layer's `Form` says how the matrix is made of it.
The graph keeps the codes of the parameter; the backward pass decodes and expands them again.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .autograd import in_transform
from .floats import dense
from .log_tensor import LogTensor


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
        """As in `form`."""
        return self.form.expand(weight)

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """As in `form`."""
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
