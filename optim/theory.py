"""How large a multiplicative step may be: Theorem 1 of Bernstein et al. 2020, and the angle that it asks for."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def largest_lr(depth: int, angle: float = math.pi / 4) -> float:
    """The learning rate below which a multiplicative update is sure to decrease the loss.

    It holds for networks that obey deep relative trust, for the update ``W - lr * |W| * sign(g)`` on the full gradient.
    `Madam` divides by a root mean square instead of taking signs, sees one batch, and averages over many steps: its
    default lr is far above the bound, and the bound says how it should fall with depth.

    Args:
        depth: L, the layers that a path through the network passes; at least 1.
        angle: gamma, in radians from 0 to pi/2: the largest, over layers, of the angles between |g| and |W|. Without
            it, the pi/4 that the paper thinks typical.

    Returns:
        (1 + cos(gamma))^(1/L) - 1.

    Raises:
        TypeError, ValueError: an argument out of bounds.

    Source: Theorem 1. The paper's numbers for 50, 500 and 5,000 layers:

    >>> [round(largest_lr(depth), 4) for depth in (50, 500, 5000)]
    [0.0108, 0.0011, 0.0001]
    """
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise TypeError(f"depth must be an int of at least 1, got {depth!r}")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    if not 0 <= angle <= math.pi / 2:
        raise ValueError(f"angle must be from 0 to pi/2 radians, got {angle}")
    return math.expm1(math.log1p(math.cos(angle)) / depth)


def angle(weight: Tensor, grad: Tensor) -> float:
    """gamma, the angle in radians between |weight| and |grad|, entries taken as one vector: 0 to pi/2.

    Args:
        weight, grad: the same shape; LogTensors too.

    Raises:
        ValueError: the shapes differ, or one of them is zero and has no direction.

    >>> round(angle(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])) / math.pi, 6)
    0.25
    """
    if weight.shape != grad.shape:
        raise ValueError(f"weight and grad must have the same shape, got {tuple(weight.shape)} and {tuple(grad.shape)}")
    w, g = (torch.as_tensor(x.detach().double()).abs().flatten() for x in (weight, grad))
    norms = float(w.norm() * g.norm())
    if norms == 0:
        raise ValueError("weight and grad must not be zero: a zero vector has no angle")
    return math.acos(min(1.0, float(w @ g) / norms))
