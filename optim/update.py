"""The update rule of the paper as pure functions of tensors: Algorithm 1 and section 4.1 of Bernstein et al. 2020.

In the paper's symbols, with t the step. ``^`` marks what is not in the paper::

    g2bar <- beta * g2bar + (1 - beta) * g^2                                             running_average
    r     <- clamp(g / gbar, -eta*/eta, eta*/eta)      ^gbar^2 over (1 - beta^t)         direction
    W     <- W * exp(-eta * sign(W) * r), clamped to +-sigma*            Algorithm 1     step_floats
    k     <- clamp(k + round(r * eta / eta_0) * sign(W), 0, 2^B - 1)     section 4.1     step_codes

Options beyond the paper are momentum, stochastic rounding, and *sign crossing*: a weight that moves below the lowest rung
flips its sign and stays on that rung. `lognet.optim.affine` has the step that is Madam's default.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOAT_RANGE = 2.0**8
"""Floats have no lowest rung. Sign crossing and steps from zero use that of the default ladder, sigma* / 256."""


def running_average(average: Tensor, value: Tensor, beta: float) -> Tensor:
    """average <- beta * average + (1 - beta) * value, in place.

    Each product and the sum are rounded separately, so that every back end gets the same number.
    """
    return average.mul_(beta).add_(value * (1 - beta))


def nesterov(grad: Tensor, average: Tensor, momentum: float) -> Tensor:
    """The running average after one more gradient equal to this one: momentum * average + (1 - momentum) * g.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, without its schedule of constants.
    """
    return average * momentum + grad * (1 - momentum)


def root(x: Tensor) -> Tensor:
    """The correctly rounded square root. torch's float32 root may come from a library whose last bit is wrong at times.

    Rounding the float64 root is exact, because the root of a float32 is never close enough to the middle of two float32.
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

    A weight that the step is too small to change keeps its value, even beyond sigma_star. A weight of exactly zero starts from
    the lowest rung, sigma_star / FLOAT_RANGE, with the sign opposite to r. With `sign_crossing`, a weight that shrinks below the
    lowest rung flips its sign and stays on that rung.
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
    """The codes of a tensor after a step, and counts."""

    exponent: Tensor
    negative: Tensor
    counts: Tensor
    """int64 (3,): weights with r != 0; weights with r != 0 whose move was rounded to zero; sign crossings."""


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
        rungs: lr / eta_0, the number of rungs that r = 1 moves.
        last_rung: 2^B - 1.
        sign_crossing: flip the sign of weights that move below the lowest rung. False freezes the signs.
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
    moves = moves.clamp_(-last_rung - 1, last_rung + 1).to(
        torch.int32
    )  # larger moves have the same effect, but may overflow
    k = exponent + torch.where(negative, -moves, moves)
    crossing = k > last_rung if sign_crossing else torch.zeros_like(negative)
    tried = r != 0
    counts = torch.stack([tried.sum(), (tried & (moves == 0)).sum(), crossing.sum()])
    return CodeStep(k.clamp_(0, last_rung), negative ^ crossing, counts)
