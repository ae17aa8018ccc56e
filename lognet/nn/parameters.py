"""Parameters of structured layers: initialised in float, kept in float or in a few bits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..quant.log_format import LogFormat, parameter_scale
from ..tensor.log_tensor import LogTensor
from ..tensor.recompute import autocast_dtype


def make_parameter(x: Tensor, bits: int | None) -> nn.Parameter:
    """A parameter of x's values: float, or with `bits` a LogTensor as `lognet.wrap` would make it.

    Raises:
        ValueError: `bits` given and x on the meta device, or `bits` out of bounds.
    """
    if bits is None:
        return nn.Parameter(x)
    if x.is_meta:
        raise ValueError(
            f"bits={bits} needs values to quantise, and the meta device has none; make the layer on a device"
        )
    return nn.Parameter(LogTensor.from_float(x, bits=bits, scale=parameter_scale(x)))


def check_bits(bits: int | None) -> int | None:
    """Return `bits` if it is None or a width that a ladder can have, else raise TypeError or ValueError."""
    if bits is not None:
        if isinstance(bits, bool) or not isinstance(bits, int):
            raise TypeError(f"bits must be None (float parameters) or an int, got {bits!r}")
        LogFormat(bits)
    return bits


def check_dtype(input: Tensor, parameter: Tensor, name: str = "input") -> None:
    """Raise TypeError unless `input` has the dtype of the parameters; under autocast both get its own."""
    if input.dtype != parameter.dtype and autocast_dtype(input.device) is None:
        raise TypeError(
            f"{name} is {input.dtype} but the parameters are {parameter.dtype}; convert the one ({name}.to(...)) or the"
            " other (layer.to(...))"
        )


def glorot(shape: tuple[int, ...], fan_in: int, fan_out: int, device: Any = None, dtype: Any = None) -> Tensor:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)).

    For a weight of tuples the fans count tuples: each component is initialised as the weight of a real layer would be
    (AlgebraNets, section 2.3: "standard Glorot weight initialization of each component independently").
    """
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound)


@torch.no_grad()
def write_(parameter: Tensor, x: Tensor) -> None:
    """Give a parameter new values in place; a LogTensor keeps its ladder."""
    parameter.copy_(x)


def quantize_(module: nn.Module, bits: int | None) -> None:
    """Make the parameters that a module holds itself `bits` wide, for layers that build on torch's own."""
    if check_bits(bits) is None:
        return
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, make_parameter(parameter.detach(), bits))
