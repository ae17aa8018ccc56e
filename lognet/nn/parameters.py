"""Parameters of structured layers: initialised in float, kept in float or in a few bits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..quant.log_format import LogFormat
from ..quant.random_bits import mix64
from ..tensor.autograd import autocast_dtype
from ..tensor.log_tensor import LogTensor
from ..tensor.parameter import few_bit_parameter, held_parameters


def quantize_parameters_(module: nn.Module, bits: int | None) -> None:
    """Make every float parameter of a module a LogTensor parameter, in place, to the bit as `lognet.wrap` does.

    A layer calls it at the end of its constructor. None changes nothing. LogTensor parameters stay as they are. The
    attribute `bits` of the module and of its parts is set, if they have one.

    Raises:
        TypeError, ValueError: `bits` is not an int or out of bounds, a parameter is on the meta device.
    """
    if check_bits(bits) is None:
        return
    held = [p for p in held_parameters(module) if not isinstance(p.tensor, LogTensor)]
    # 0 is the default seed of `lognet.wrap`, from which the signs of zeros are drawn
    made = [few_bit_parameter(p, LogFormat(bits), mix64(0, i)) for i, p in enumerate(held)]  # type: ignore[arg-type]
    for old, new in zip(held, made, strict=True):
        for holder in old.holders:
            setattr(holder.module, holder.attribute, new)
    for part in module.modules():
        if hasattr(part, "bits"):
            part.bits = bits  # type: ignore[assignment]


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
