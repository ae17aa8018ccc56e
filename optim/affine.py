"""The affine step, ours: Madam's default, as pure functions of tensors.

With c from 0 to 1, sigma the typical magnitude of a parameter's weights, and r the `direction` of the paper's rule::

    W     <- W - eta * ((1 - c) * |W| + c * sigma) * r                                   affine_floats
    k     <- a rung next to that W, drawn so that its mean is W                          affine_codes

A multiplicative step leaves small weights where they are: they need many steps to grow and can hardly change sign. The
affine one moves the typical weight by the same share eta and all smaller ones at least by c * eta * sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quant.log_format import LogFormat
from .update import FLOAT_RANGE, CodeStep

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
    weight = format.decode(exponent, negative, torch.ones((), device=r.device), r.dtype)
    target = affine_target(weight, r, relative, absolute)
    if not sign_crossing:
        target = torch.where(negative, target.clamp(max=0), target.clamp(min=0))
    k, side = format.encode_unbiased(target, 0.5 if u is None else u)
    side = side if sign_crossing else negative
    tried, crossing = r != 0, side ^ negative  # not side != negative: inductor's C++ cannot compare two masks
    counts = torch.stack([tried.sum(), (tried & (k == exponent) & ~crossing).sum(), crossing.sum()])
    return CodeStep(k, side, counts)
