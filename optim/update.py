"""The update rule of the paper as pure functions of tensors: Algorithm 1 and section 4.1 of Bernstein et al. 2020.

In the paper's symbols, with t the step and ``^`` what we add to it::

    g2bar <- beta * g2bar + (1 - beta) * g^2                                             running_average
    r     <- clamp(g / gbar, -eta*/eta, eta*/eta)      ^gbar^2 over (1 - beta^t)         direction
    W     <- W * exp(-eta * sign(W) * r), clamped to +-sigma*            Algorithm 1     step_floats
    k     <- clamp(k + round(r * eta / eta_0) * sign(W), 0, 2^B - 1)     section 4.1     step_codes

and beyond the paper, as options: momentum, stochastic rounding, and *sign crossing* (a weight pushed below the lowest
rung flips its sign and stays on that rung). `affine` has the step that is Madam's default.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOAT_RANGE = 2.0**8
"""Floats have no lowest rung; for sign crossing, and to start from zero, they get the default ladder's: sigma* / 256."""


def running_average(average: Tensor, value: Tensor, beta: float) -> Tensor:
    """average <- beta * average + (1 - beta) * value, in place.

    Two products and a sum, each rounded by itself, so that every back end gets the same number.
    """
    return average.mul_(beta).add_(value * (1 - beta))


def nesterov(grad: Tensor, average: Tensor, momentum: float) -> Tensor:
    """The running average as it will be if the next gradient is like this one: momentum * average + (1 - momentum) * g.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, without its schedule of constants.
    """
    return average * momentum + grad * (1 - momentum)


def root(x: Tensor) -> Tensor:
    """The square root, correctly rounded, as processors have it: torch's, in float32, may come from a library that is a bit
    off at times. The root of a float32 never lies so close to the middle of two that float64 takes the wrong one.
    """
    return x.to(torch.float64).sqrt_().to(x.dtype)


def direction(grad: Tensor, g2bar: Tensor, g_bound: float, correction: float | Tensor = 1.0) -> Tensor:
    """r = g / gbar, clamped to +-g_bound, where gbar = sqrt(g2bar * correction) and 0/0 is 0."""
    gbar = root(g2bar * correction)
    return torch.where(gbar > 0, grad / gbar, 0).clamp_(-g_bound, g_bound)


def step_floats(
    weight: Tensor, r: Tensor, lr: float | Tensor, sigma_star: float | Tensor, sign_crossing: bool
) -> Tensor:
    """Algorithm 1: W * exp(-lr * sign(W) * r), clamped to +-sigma_star. Returns the new weights.

    Weights that the step is too small to change stay as they are, clamp included. A weight of exactly zero has no sign
    to keep: it starts from the lowest rung, on the side where the gradient sends it. With `sign_crossing`, a weight that
    the step takes down below the lowest rung, sigma_star / FLOAT_RANGE, flips its sign and stays there.
    """
    floor = sigma_star / FLOAT_RANGE
    side = torch.where(weight == 0, -r.sign(), weight.sign())
    start = torch.where(weight == 0, floor, weight.abs())
    magnitude = start * torch.exp(-lr * side * r)
    moving = magnitude != start
    if sign_crossing:
        crossing = (magnitude < floor) & (magnitude < start)
        side = torch.where(crossing, -side, side)
        magnitude = torch.where(crossing, floor, magnitude)
    return torch.where(moving, side * magnitude.clamp(max=sigma_star), weight)


class CodeStep(NamedTuple):
    """What a step did to the codes of a tensor."""

    exponent: Tensor
    negative: Tensor
    counts: Tensor
    """int64 (3,): weights with r != 0, those among them whose move was rounded to nothing, sign crossings."""


def step_codes(
    exponent: Tensor,
    negative: Tensor,
    r: Tensor,
    rungs: float | Tensor,
    last_rung: int,
    sign_crossing: bool,
    random16: Tensor | None,
) -> CodeStep:
    """Section 4.1: k + round(r * lr / eta_0) * sign(W), on integers.

    Args:
        exponent, negative: the codes, int32 and bool.
        r: the clamped direction, floating, same shape.
        rungs: lr / eta_0, rungs moved by r = 1.
        last_rung: 2^B - 1.
        sign_crossing: flip the sign of weights pushed below the lowest rung; False keeps signs frozen.
        random16: None rounds to the nearest rung (ties to even, as torch.round); random integers 0 .. 2^16 - 1 (int32)
            round stochastically, away from zero with the probability of the fractional part.
    """
    exact = r * rungs
    if random16 is None:
        moves = exact.round()
    else:
        size = exact.abs()
        whole = size.floor()
        moves = (whole + ((random16 + 1) * 2.0**-16 < size - whole)) * exact.sign()
    moves = moves.clamp_(-last_rung - 1, last_rung + 1).to(torch.int32)  # as good as any larger one, and no overflow
    k = exponent + torch.where(negative, -moves, moves)
    crossing = k > last_rung if sign_crossing else torch.zeros_like(negative)
    tried = r != 0
    counts = torch.stack([tried.sum(), (tried & (moves == 0)).sum(), crossing.sum()])
    return CodeStep(k.clamp_(0, last_rung), negative ^ crossing, counts)
