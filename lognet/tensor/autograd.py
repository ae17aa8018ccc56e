"""Decoding as a step of autograd, and when autograd functions like it must not be used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad


def in_transform() -> bool:
    """Whether a transform of torch.func (vmap, jvp, ...) or forward-mode differentiation is active.

    These have rules for torch's own operations, not for the autograd functions of this folder. So they get the plain
    computation on decoded weights, with the graph that torch makes of it.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


class Dequantize(Function):
    """The values of a LogTensor in a dtype. The derivative is the identity, so that nothing is saved."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Any, dtype: torch.dtype) -> Tensor:
        return weight._decode(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.dtype, ctx.to = inputs[0].dtype, output.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None) -> Tensor | None:
        return None if tangent is None else tangent.to(ctx.to)
