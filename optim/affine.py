"""The affine step, ours: Madam's default, as pure functions of tensors.

With c from 0 to 1, sigma the typical magnitude of a parameter's weights, and r the `direction` of the paper's rule::

    W     <- W - eta * ((1 - c) * |W| + c * sigma) * r                                   affine_floats
    k     <- a rung next to that W, drawn so that its mean is W                          affine_codes

On codes the step is a ratio: |W| cancels from W' / W, and what is left of it is eta * sigma / |W|, of a small table.

A multiplicative step leaves small weights where they are: they need many steps to grow and can hardly change sign. The
affine one moves the typical weight by the same share eta and all smaller ones at least by c * eta * sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quant.log_format import LogFormat
from ..quant.ratios import inverse_rungs, rungs_for_ratio, spacing
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
    random16: Tensor | None,
) -> CodeStep:
    """The affine step on codes: `affine_target`, rounded to one of the two rungs around it.

    With c_k the rung below the last one, divided by rung k, the weight W is to be multiplied with::

        W' / W = 1 - (relative + absolute * c_k) * r * sign(W)

    Between the lowest rung and its negative there is no zero. A weight whose target lies there, which is where W' / W lies
    within +-exp(eta_0) * c_k, goes to one of these two, drawn so that their mean is W'.

    Args:
        format: the ladder.
        exponent, negative: the codes, int32 and bool.
        r: the clamped direction, floating, same shape.
        relative, absolute: of `affine_coefficients`, in units of the rung below the last one.
        sign_crossing: let weights go to the other side of zero; False stops them on the lowest rung.
        random16: None rounds to the nearest rung; random integers 0 .. 2^16 - 1 (int32) round so that the mean is the
            target.
    """
    r = r.to(torch.float32)
    c = inverse_rungs(format, r).index_select(0, exponent.reshape(-1)).view(exponent.shape)
    ratio = 1 - (c * absolute + relative) * torch.where(negative, -r, r)
    if sign_crossing:
        signed = 0 if random16 is None else torch.where(random16 < 2**15, random16, random16 - 2**16)
        crossing = ratio < signed * spacing(format.base_precision).zero * c
        ratio = ratio.abs()
    else:
        crossing = torch.zeros_like(negative)
        ratio = ratio.clamp(min=0)
    moves = rungs_for_ratio(ratio, format.base_precision, random16)
    k = (exponent + moves).clamp_(0, format.last_rung)
    tried, stays = r != 0, (k == exponent) & ~crossing
    counts = torch.stack([tried.sum(), (tried & stays).sum(), crossing.sum()])
    return CodeStep(k, negative ^ crossing, counts)
