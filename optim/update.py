"""The update rule as pure functions of tensors: Bernstein et al. 2020, and the affine step, which is ours.

In the paper's symbols, with t the step and ``^`` what we add to it::

    g2bar <- beta * g2bar + (1 - beta) * g^2                                             second_moment
    r     <- clamp(g / gbar, -eta*/eta, eta*/eta)      ^gbar^2 divided by (1 - beta^t)   direction
    W     <- W * exp(-eta * sign(W) * r), clamped to +-sigma*            Algorithm 1     step_floats
    k     <- clamp(k + round(r * eta / eta_0) * sign(W), 0, 2^B - 1)     section 4.1     step_codes

and, with c from 0 to 1 and sigma the typical magnitude of a parameter's weights, the *affine step*::

    W     <- W - eta * ((1 - c) * |W| + c * sigma) * r                                   affine_floats
    k     <- a rung next to that W, drawn so that its mean is W                          affine_codes

A multiplicative step leaves small weights where they are: they need many steps to grow and can hardly change sign. The
affine one moves the typical weight by the same share eta and all smaller ones at least by c * eta * sigma.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..quant.log_format import LogFormat

FLOAT_RANGE = 2.0**8
"""Floats have no lowest rung; for sign crossing, and to start from zero, they get the default ladder's: sigma* / 256."""


def second_moment(g2bar: Tensor, grad: Tensor, beta: float) -> None:
    """g2bar <- beta * g2bar + (1 - beta) * g^2, in place."""
    g2bar.mul_(beta).addcmul_(grad, grad, value=1 - beta)


def nesterov(grad: Tensor, average: Tensor, momentum: float) -> Tensor:
    """The running average as it will be if the next gradient is like this one: momentum * average + (1 - momentum) * g.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, without its schedule of constants.
    """
    return average * momentum + grad * (1 - momentum)


def direction(grad: Tensor, g2bar: Tensor, g_bound: float, correction: float | Tensor = 1.0) -> Tensor:
    """r = g / gbar, clamped to +-g_bound, where gbar = sqrt(g2bar / correction) and 0/0 is 0."""
    gbar = (g2bar / correction).sqrt_()
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
    u: Tensor | None,
) -> CodeStep:
    """Section 4.1: k + round(r * lr / eta_0) * sign(W), on integers.

    Args:
        exponent, negative: the codes, int32 and bool.
        r: the clamped direction, floating, same shape.
        rungs: lr / eta_0, rungs moved by r = 1.
        last_rung: 2^B - 1.
        sign_crossing: flip the sign of weights pushed below the lowest rung; False keeps signs frozen.
        u: None rounds to the nearest rung (ties to even, as torch.round); uniform numbers on (0, 1] round
            stochastically, away from zero with the probability of the fractional part.
    """
    exact = r * rungs
    if u is None:
        moves = exact.round()
    else:
        size = exact.abs()
        whole = size.floor()
        moves = (whole + (u < size - whole)) * exact.sign()
    moves = moves.clamp_(-last_rung - 1, last_rung + 1).to(torch.int32)  # as good as any larger one, and no overflow
    k = exponent + torch.where(negative, -moves, moves)
    crossing = k > last_rung if sign_crossing else torch.zeros_like(negative)
    tried = r != 0
    counts = torch.stack([tried.sum(), (tried & (moves == 0)).sum(), crossing.sum()])
    return CodeStep(k.clamp_(0, last_rung), negative ^ crossing, counts)


STEP_SIGMA = 0.2
"""The largest magnitude that the affine step counts as typical. Layers with many inputs have weights far below it; gains of
norms and freshly drawn embeddings are about 1 whatever their number, and as sensitive as the rest."""


def affine_coefficients(lr: float, affine: float, sigma: float, unit: float = 1.0) -> tuple[float, float]:
    """The numbers (relative, absolute) of `affine_target`: lr * min(1, STEP_SIGMA / sigma) times (1 - c, c * sigma).

    Args:
        lr, affine: eta and c.
        sigma: the typical magnitude of the parameter.
        unit: what its weights are measured in.
    """
    step = lr * min(1.0, STEP_SIGMA / sigma)
    return step * (1 - affine), step * affine * sigma / unit


def affine_target(weight: Tensor, r: Tensor, relative: float | Tensor, absolute: float | Tensor) -> Tensor:
    """W - (relative * |W| + absolute) * r: multiplicative for large weights, and small ones are never paralysed."""
    return weight - (weight.abs() * relative + absolute) * r


def affine_floats(
    weight: Tensor,
    r: Tensor,
    relative: float | Tensor,
    absolute: float | Tensor,
    sigma_star: float | Tensor,
    sign_crossing: bool,
) -> Tensor:
    """The affine step on floats: `affine_target`, within +-sigma_star. Returns the new weights.

    Weights beyond the bound from the start may stay but not grow. With frozen signs, weights stop at
    sigma_star / FLOAT_RANGE on their side of zero, and those of exactly zero take the side where they are sent.
    """
    target = affine_target(weight, r, relative, absolute)
    bound = weight.abs().clamp(min=sigma_star)
    if sign_crossing:
        return target.clamp(-bound, bound)
    side = torch.where(weight == 0, target.sign(), weight.sign())
    floor = weight.abs().clamp(max=sigma_star / FLOAT_RANGE)  # nor are those below it lifted
    floor = torch.where(weight == 0, sigma_star / FLOAT_RANGE, floor)
    return torch.where(target == weight, weight, side * (target * side).clamp(floor, bound))


def affine_codes(
    format: LogFormat,
    exponent: Tensor,
    negative: Tensor,
    r: Tensor,
    relative: float | Tensor,
    absolute: float | Tensor,
    sign_crossing: bool,
    u: Tensor | None,
) -> CodeStep:
    """The affine step on codes: `affine_target` in units of the scale, rounded to one of the two rungs around it.

    Args:
        format: the ladder.
        exponent, negative: the codes, int32 and bool.
        r: the clamped direction, floating, same shape.
        relative, absolute: of `affine_coefficients`, with the scale as unit.
        sign_crossing: let weights go to the other side of zero; False stops them on the lowest rung.
        u: None rounds to the nearest rung; uniform numbers on (0, 1] round so that the mean is the target.
    """
    rungs = format.unit_rungs(r.dtype, r)
    index = torch.add(exponent, negative.to(torch.int32), alpha=format.last_rung + 1)
    weight = rungs.index_select(0, index.view(-1)).view(r.shape)
    target = affine_target(weight, r, relative, absolute)
    if not sign_crossing:
        lowest = rungs[format.last_rung]
        target = torch.where(negative, target.clamp(max=-lowest), target.clamp(min=lowest))
    k, side = format.encode_unbiased(target, 0.5 if u is None else u)
    tried = r != 0
    counts = torch.stack([tried.sum(), (tried & (k == exponent) & (side == negative)).sum(), (side != negative).sum()])
    return CodeStep(k, side, counts)
