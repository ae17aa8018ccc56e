"""Rounding onto a table of rungs so that the expected value is the value itself.

Weights and the optimizer's averages in few bits share it. The table is built once in float64; from there on only
comparisons, differences and one product decide, so that every back end takes the same rung.
"""

from __future__ import annotations

import torch
from torch import Tensor


def round_to_rungs(y: Tensor, rungs: Tensor, base_precision: float, u: Tensor | float) -> Tensor:
    """The number k of one of the two rungs around y, drawn so that the mean of ``rungs[k]`` is y.

    Args:
        y: any shape, from 0 to 1, floating.
        rungs: 1-D, descending, of y's dtype; ``rungs[k]`` is exp(-k * base_precision), but for the last, which may be 0.
        base_precision: eta_0; it only says where to look in the table.
        u: uniform on (0, 1], y's shape, to draw with; 1/2 takes the nearest rung, the upper one of two.

    Returns:
        int32, y's shape. Below the last rung, that one.

    >>> rungs = torch.tensor([1.0, 0.5, 0.25])
    >>> round_to_rungs(torch.tensor([1.0, 0.7, 0.3, 0.0]), rungs, 0.6931, u=0.5).tolist()
    [0, 1, 2, 2]
    """
    upper, lower = rungs[:-1], rungs[1:]
    last = len(upper) - 1
    guess = y.log().mul_(-1 / base_precision).clamp_(0, last).to(torch.int32).view(-1)
    flat = y.reshape(-1)
    off = (flat <= lower.index_select(0, guess)).to(torch.int32)
    off -= (flat > upper.index_select(0, guess)).to(torch.int32)
    k = guess.add_(off).clamp_(0, last)  # the logarithm is one off at most, and only next to a rung
    above, below = upper.index_select(0, k), lower.index_select(0, k)
    u = u.reshape(-1) if isinstance(u, Tensor) else u
    return (k + (flat - below < u * (above - below)).to(torch.int32)).view(y.shape)
