"""The affine step, Madam's default, as pure functions of tensors. It is not in the paper.

c is from 0 to 1, sigma is the typical magnitude of a parameter's weights, and r is the `direction` of the paper's rule::

    W     <- W - eta * ((1 - c) * |W| + c * sigma) * r                                   affine_floats
    k     <- a rung next to that W, drawn so that its mean is W                          affine_codes

On codes the step is a ratio W' / W. It depends on the weight only through eta * sigma / |W|, which a small table gives.

Under a multiplicative step small weights hardly change: they need many steps to grow, and rarely change sign. The affine step
moves the typical weight by the same share eta, and every smaller weight by at least c * eta * sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quant.log_format import LogFormat
from ..quant.ratios import inverse_rungs, rungs_for_ratio, spacing
from .update import FLOAT_RANGE, CodeStep

STEP_SIGMA = 0.2
"""The largest typical magnitude for which the step is eta. Layers with many inputs have weights far below it. Gains of norms and
initial embeddings are about 1 at every size, but as sensitive as other weights, so their step is smaller."""


def affine_coefficients(lr: float, affine: float, sigma: float, unit: float = 1.0) -> tuple[float, float]:
    """The numbers (relative, absolute) of `affine_target`: lr * min(1, STEP_SIGMA / sigma) times (1 - c, c * sigma).

    Args:
        lr, affine: eta and c.
        sigma: the typical magnitude of the parameter.
        unit: the unit of its weights.
    """
    step = lr * min(1.0, STEP_SIGMA / sigma)
    return step * (1 - affine), step * affine * sigma / unit


def affine_target(weight: Tensor, r: Tensor, relative: float | Tensor, absolute: float | Tensor) -> Tensor:
    """W - (relative * |W| + absolute) * r: multiplicative for large weights, additive for small ones."""
    return weight - (weight.abs() * relative + absolute) * r


def affine_floats(
    weight: Tensor,
    r: Tensor,
    relative: float | Tensor,
    absolute: float | Tensor,
    sigma_star: float | Tensor,
    sign_crossing: bool,
) -> Tensor:
    """The affine step on floats: `affine_target`, clamped to +-sigma_star. Returns the new weights.

    Weights that are beyond the bound already may stay but not grow. With frozen signs, weights stop at
    sigma_star / FLOAT_RANGE with their sign, and weights of exactly zero take the sign of the target.
    """
    target = affine_target(weight, r, relative, absolute)
    bound = weight.abs().clamp(min=sigma_star)
    if sign_crossing:
        return target.clamp(-bound, bound)
    side = torch.where(weight == 0, target.sign(), weight.sign())
    floor = weight.abs().clamp(max=sigma_star / FLOAT_RANGE)  # weights below it are not raised to it
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

    With c_k the rung that would follow the last one, divided by rung k, the weight W is multiplied by::

        W' / W = 1 - (relative + absolute * c_k) * r * sign(W)

    The ladder has no zero. A target between the lowest rung and its negative, where W' / W lies within +-exp(eta_0) * c_k,
    becomes one of these two, drawn so that the mean is W'.

    Args:
        format: the ladder.
        exponent, negative: the codes, int32 and bool.
        r: the clamped direction, floating, same shape.
        relative, absolute: of `affine_coefficients`, with the rung that would follow the last one as unit.
        sign_crossing: let weights change sign. False stops them on the lowest rung.
        random16: None rounds to the nearest rung. Random integers 0 .. 2^16 - 1 (int32) round so that the mean is the
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
