"""The two ways to round to a rung, and the one way to ask a function for either.

Users give a name: "nearest", or "stochastic" for one of the two rungs around a number, drawn without bias. Functions take random
numbers instead, always in one argument: None rounds to nearest, a tensor of random numbers rounds stochastically.

What is nearest, and of what the mean is exact, each function says itself. `LogFormat.encode` rounds in log space. The optimizer's
moves (`lognet.quant.ratios`), its averages (`lognet.quant.block_format`) and the quantizers round in value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .random_bits import random16

ROUNDINGS = ("nearest", "stochastic")
MIDDLE = 2**15
"""The number of 16 bits that rounds to nearest, where a formula needs one in place of random numbers."""


def check_rounding(rounding: str) -> str:
    """Return `rounding` if it is one of `ROUNDINGS`, else raise ValueError."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(map(repr, ROUNDINGS))}, got {rounding!r}")
    return rounding


def drawn(
    rounding: str, count: int, key: int | Tensor, start: int | Tensor = 0, device: torch.device | str = "cpu"
) -> Tensor | None:
    """The random numbers that a rounding needs: None for "nearest", for "stochastic" those of `random16`.

    >>> drawn("nearest", 3, key=7), drawn("stochastic", 3, key=7).dtype
    (None, torch.int32)
    """
    return random16(count, key, start, device) if check_rounding(rounding) == "stochastic" else None
