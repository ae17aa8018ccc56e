"""Autograd, the transforms of torch.func, and autocast: what operations on LogTensors ask of them, and decoding as a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

_CAST_FROM = (torch.float32, torch.float16, torch.bfloat16)  # float64 stays, as in torch


def in_transform() -> bool:
    """Whether a transform of torch.func (vmap, jvp, ...) or forward-mode differentiation is active.

    These have rules for torch's own operations, not for the autograd functions of this folder. So they get the plain
    computation on decoded weights, with the graph that torch makes of it.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def differentiated(*args: Any) -> bool:
    """Whether a derivative may be asked for: in reverse mode, in forward mode, or by a transform of torch.func."""
    wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
    return wanted or in_transform()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of torch.autocast on a device; None where autocast is off, and on the meta device, which has none."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def in_autocast_dtype(*tensors: Any) -> Any:
    """The tensors (or None) in the dtype of torch.autocast, as torch's own linear and convolution cast them.

    Casting a LogTensor changes only the dtype in which it decodes.
    """
    if not torch._C._is_any_autocast_enabled():
        return tensors
    dtype = autocast_dtype(next(t.device for t in tensors if t is not None))
    if dtype is None:
        return tensors
    return tuple(t.to(dtype) if t is not None and t.dtype in _CAST_FROM else t for t in tensors)


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
