"""Run a function of LogTensors a second time in the backward pass, so that the graph keeps codes and inputs alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..quant.tracing import tracing
from .autograd import autocast_dtype, in_transform
from .floats import dense
from .log_tensor import LogTensor


class _Recomputed(Function):
    """Any differentiable function, computed again from the codes in the backward pass."""

    @staticmethod
    def forward(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
        return function(*map(dense, tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        device = next(t.device for t in tensors if t is not None)
        dtype = autocast_dtype(device)
        ctx.autocast = None if dtype is None else (device.type, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # with create_graph=True the gradient itself is differentiated, with respect to the saved tensors
        twice = torch.is_grad_enabled()
        inputs = []
        with torch.enable_grad(), torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext():
            for t, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True):
                own = t
                if t is not None and t.is_floating_point():
                    # A view is a new node of the graph. If one input was computed from another, no gradient flows between them.
                    own = dense(t) if isinstance(t, LogTensor) else t.view_as(t)
                inputs.append(own.detach().requires_grad_() if needed and not twice else own)
            outputs = ctx.function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        ends, starts = [out for out, _ in pairs], [inputs[i] for i in wanted]
        upstream = [grad for _, grad in pairs]
        found = torch.autograd.grad(ends, starts, upstream, create_graph=twice, allow_unused=True)
        result: list[Tensor | None] = [None] * (1 + len(inputs))
        for i, grad in zip(wanted, found, strict=True):
            result[1 + i] = grad
        return tuple(result)


def recomputed(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
    """``function(*tensors)`` with LogTensors decoded, and a graph that keeps the tensors alone.

    Layers made of several small factors use it: everything between the factors and the result is computed again in the
    backward pass, as `torch.utils.checkpoint` does. Without a LogTensor among the tensors it is the plain call, with
    torch's usual graph. The same holds under torch.compile, which decides itself what a graph keeps.

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
            return function(*map(dense, tensors))
        return _Recomputed.apply(function, *tensors)
    return function(*tensors)
