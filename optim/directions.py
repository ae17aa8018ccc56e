"""The direction r of a step, from a gradient and the averages in a parameter's state.

Madam's is the adaptive one, the gradient over the root of its mean square. A function of the signature of
`adaptive_direction` can take its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..quant.block_format import BlockFormat
from ..quant.random_bits import random16
from .parameter_step import Scalars
from .state import state_format
from .update import direction, nesterov, root, running_average


def adaptive_direction(state: dict[str, Any], grad: Tensor, group: dict[str, Any], scalars: Scalars) -> Tensor:
    """r, clamped to +-g_bound. Updates the averages with the gradient.

    Args:
        state: of the parameter, with the averages of `prepare_state`; changed in place.
        grad: the gradient to descend along, float32 or float64, of the shape of the averages.
        group: the hyperparameters.
        scalars: the numbers of this step.
    """
    if group["state_bits"] != 32:
        return _from_few_bits(state, grad, group, scalars)
    momentum = group["momentum"]
    running_average(state["exp_avg_sq"], grad * grad, group["beta"])
    if momentum:
        average = running_average(state["exp_avg"], grad, momentum)
        grad = nesterov(grad, average * scalars.momentum_correction, momentum)
    return direction(grad, state["exp_avg_sq"], group["g_bound"], scalars.correction)


def _from_few_bits(state: dict[str, Any], grad: Tensor, group: dict[str, Any], scalars: Scalars) -> Tensor:
    """The direction from averages in few bits, which are rounded without bias.

    The averages of a block are stored as shares of a scale s that none of them exceeds. The scale is in units of the
    gradient, so that gradients from 1e-30 to 1e30 give the same steps. With G the block's largest gradient, and ^ for
    shares::

        s' = sqrt(beta * s^2 + (1 - beta) * G^2)        v^ <- beta * (s / s')^2 * v^ + (1 - beta) * (g / s')^2
        s' = mu * s + (1 - mu) * G                      m^ <- mu * (s / s') * m^ + (1 - mu) * g / s'

    for squares and, with momentum, for means. r is computed as in 32 bits, from the averages before they are rounded.
    Squares take the first random bits of `state_key`, and means the ones after them.
    """
    bits, beta, momentum = group["state_bits"], group["beta"], group["momentum"]
    count, dtype, shape = grad.numel(), grad.dtype, grad.shape
    draw = lambda start: random16(count, scalars.state_key, start, grad.device)
    flat = lambda blocks: blocks.view(-1)[:count]
    blocks = BlockFormat.blocks(grad.to(torch.float32))
    largest = blocks.abs().amax(dim=1, keepdim=True)
    ahead = blocks

    if momentum:
        format, old = state_format("exp_avg", bits), state["exp_avg_scale"].unsqueeze(1)
        new = old * momentum + largest * (1 - momentum)
        ratio = torch.where(new > 0, old / new, 0)
        mean = format.blocks(format.levels(state["exp_avg"], count)) * (ratio * momentum)
        mean = mean + blocks * _inverse(new) * (1 - momentum)
        ahead = mean * (new * scalars.momentum_correction * momentum) + blocks * (1 - momentum)
        state["exp_avg"].copy_(format.encode(flat(mean), draw(count + -count % 32)))
        state["exp_avg_scale"].copy_(new.view(-1))

    format, old = state_format("exp_avg_sq", bits), state["exp_avg_sq_scale"].unsqueeze(1)
    unit = largest.maximum(old)
    share = lambda x: torch.where(unit > 0, x / unit, 0)
    new = unit * root(share(old) * share(old) * beta + share(largest) * share(largest) * (1 - beta))
    ratio, inverse = torch.where(new > 0, old / new, 0), _inverse(new)
    g = blocks * inverse
    square = format.blocks(format.levels(state["exp_avg_sq"], count)) * (ratio * ratio * beta) + g * g * (1 - beta)
    state["exp_avg_sq"].copy_(format.encode(flat(square), draw(0)))
    state["exp_avg_sq_scale"].copy_(new.view(-1))
    return flat(direction(ahead * inverse, square, group["g_bound"], scalars.correction)).view(shape).to(dtype)


def _inverse(scale: Tensor) -> Tensor:
    """1 / scale, and the largest float32 where that would be infinite."""
    return (1 / scale).clamp(max=torch.finfo(torch.float32).max)
