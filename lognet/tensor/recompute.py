"""Decode again in the backward pass: how computations on LogTensors keep codes instead of decoded weights.

`dense` decodes; a `Form` says how the matrix or kernel that multiplies is made of a decoded weight, when it is not the
weight itself; `recomputed` runs any function of LogTensors a second time when its gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .log_tensor import LogTensor, in_transform


def dense(x: Tensor) -> Tensor:
    """`x.dequantize()` for a LogTensor, `x` itself otherwise. Differentiable."""
    return x.dequantize() if isinstance(x, LogTensor) else x


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of torch.autocast on a device; None where it is off, or where there is none (the meta device)."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


class Form(Protocol):
    """A linear map from a weight to the matrix or kernel that multiplies, and its adjoint; both differentiable."""

    def expand(self, weight: Tensor) -> Tensor:
        """The matrix or kernel, from the decoded weight."""
        ...

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of the weight, of `shape`, from that of the matrix or kernel."""
        ...


class Steps:
    """A form for a weight that a computation uses several times, as a recurrence does: decoded once for all of them.

    The matrix is let go after as many uses as there are steps, forward or backward.
    """

    def __init__(self, form: Form, uses: int) -> None:
        self.form, self.uses = form, uses
        self.left, self.kept = 0, torch.empty(0)

    def matrix(self, weight: Tensor) -> Tensor:
        """The matrix of the weight, which is that of the first use."""
        if self.left == 0:
            self.left, self.kept = self.uses, self.form.expand(dense(weight))
        self.left, matrix = self.left - 1, self.kept
        if self.left == 0:
            self.kept = torch.empty(0)
        return matrix

    def expand(self, weight: Tensor) -> Tensor:
        """That of the form."""
        return self.form.expand(weight)

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """That of the form."""
        return self.form.collapse(grad, shape)


def formed(weight: Tensor, form: Form | None) -> Tensor:
    """The matrix or kernel that multiplies."""
    if isinstance(form, Steps) and not tracing():  # a graph decides itself what to compute once
        return form.matrix(weight)
    return dense(weight) if form is None else form.expand(dense(weight))


def collapsed(grad: Tensor, weight: Tensor, form: Form | None) -> Tensor:
    """The gradient of the weight from that of the matrix or kernel."""
    return grad if form is None else form.collapse(grad, weight.shape)


class _Rearrange(Function):
    """The matrix or kernel of a float weight, which the graph may keep: `Form` as an operation."""

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


def in_form(weight: Tensor, form: Form | None) -> tuple[Tensor, Form | None]:
    """A float weight in its form already, which the graph may keep; a LogTensor and its form as they are."""
    if form is None or isinstance(weight, LogTensor):
        return weight, form
    if in_transform():
        return form.expand(weight), None
    return _Rearrange.apply(weight, form), None


class _Recomputed(Function):
    """Any differentiable function, computed again from the codes when its gradient is asked for."""

    @staticmethod
    def forward(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
        return function(*(t if t is None else dense(t) for t in tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        device = next(t.device for t in tensors if t is not None)
        dtype = autocast_dtype(device)
        ctx.autocast = None if dtype is None else (device.type, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # create_graph: the recomputed graph hangs on the saved tensors themselves
        inputs = []
        with torch.enable_grad(), torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext():
            for t, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True):
                own = t
                if t is not None and t.is_floating_point():
                    # a node of its own, so that one input that was computed from another does not count twice
                    own = dense(t) if isinstance(t, LogTensor) else t.view_as(t)
                inputs.append(own.detach().requires_grad_() if needed and not again else own)
            outputs = ctx.function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        found = torch.autograd.grad(
            [out for out, _ in pairs],
            [inputs[i] for i in wanted],
            [grad for _, grad in pairs],
            create_graph=again,
            allow_unused=True,
        )
        result: list[Tensor | None] = [None] * (1 + len(inputs))
        for i, grad in zip(wanted, found, strict=True):
            result[1 + i] = grad
        return tuple(result)


def recomputed(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
    """``function(*tensors)`` with LogTensors decoded, and a graph that keeps their codes and nothing else of it.

    What layers made of several small factors need: everything between the factors and the result is computed again
    in the backward pass, as by `torch.utils.checkpoint`. Without a LogTensor among the tensors it is the plain call,
    with torch's usual graph. So it is under torch.compile, whose partitioner decides what a graph keeps.

    Args:
        function: takes dense tensors, returns one tensor or a tuple of tensors; it must give the same result each
            time (no random numbers) and reach no other tensor that needs a gradient.
        tensors: its arguments in order, any of them a LogTensor or None.

    >>> a, b = (torch.nn.Parameter(LogTensor.from_float(torch.ones(2, 2))) for _ in range(2))
    >>> recomputed(lambda a, b: torch.kron(a, b).sum(), a, b).backward()
    >>> a.grad
    tensor([[4., 4.],
            [4., 4.]])
    """
    if any(isinstance(t, LogTensor) for t in tensors):
        if tracing() or in_transform():
            return function(*(t if t is None else dense(t) for t in tensors))
        return _Recomputed.apply(function, *tensors)
    return function(*tensors)
