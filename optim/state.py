"""The averages that Madam keeps for every weight, in 32 bits or fewer, and the direction that they give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..quant.block_format import BlockFormat
from ..quant.random_bits import random16
from .update import direction, nesterov, root, running_average

STATE_BITS = (32, 16, 8, 4)
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}
AVERAGES = tuple(_SIGNED)


def state_format(name: str, bits: int) -> BlockFormat:
    """The format of the average `name` in fewer than 32 bits."""
    known = STATE_BITS[STATE_BITS.index(bits)]  # a constant to torch.compile, where `bits` may be a symbol
    return BlockFormat(known, _SIGNED[name])


def add_average(state: dict[str, Any], name: str, like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Put an average of zeros into the state of a parameter.

    Args:
        name: "exp_avg", of gradients, or "exp_avg_sq", of their squares.
        like: a tensor of the parameter's shape, on its device.
        dtype: of 32-bit state (float64 for float64 parameters).
        bits: one of `STATE_BITS`. Below 32 there are two entries: ``state[name]``, the codes, and
            ``state[name + "_scale"]``, a float32 for every block of them, in units of the gradient: a bound of the
            block's averages, and the root of one for squares, which themselves may lie beyond float32; and
            ``state["state_bits"]``.
    """
    if bits == 32:
        state[name] = torch.zeros_like(like, dtype=dtype)
    else:
        state[name], state[name + "_scale"] = state_format(name, bits).zeros(like.numel(), like.device)
        state["state_bits"] = bits


def recode_averages(state: dict[str, Any], like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Bring the averages of a parameter into `bits` bits if they have others: exactly into 32, else to nearest rungs.

    The arguments are those of `add_average`.
    """
    held = state.get("state_bits", bits if "exp_avg_sq_scale" in state else 32)
    if held == bits:
        return
    for name in [name for name in AVERAGES if name in state]:
        values, scale = state.pop(name).reshape(-1), state.pop(name + "_scale", None)
        power = 1 if _SIGNED[name] else 2  # of the gradient's unit, which scales are in
        if scale is not None:
            levels = BlockFormat.blocks(state_format(name, held).levels(values, like.numel()))
            values = (levels * scale.to(dtype).unsqueeze(1) ** power).view(-1)[: like.numel()]
        if bits == 32:
            state[name] = values.view(like.shape).to(dtype)
        else:
            blocks = BlockFormat.blocks(values)
            top = blocks.abs().amax(dim=1, keepdim=True)
            units = torch.where(top > 0, blocks / top, 0).view(-1)[: like.numel()]
            state[name] = state_format(name, bits).encode(units.to(torch.float32))
            state[name + "_scale"] = (top if power == 1 else root(top)).to(torch.float32).view(-1)
    state["state_bits"] = bits
    if bits == 32:
        del state["state_bits"]


def largest_gradient(dtype: torch.dtype, bits: int) -> float:
    """What every gradient must be smaller than: in 32 bits its square is kept, in fewer a scale in float32."""
    if bits == 32:
        return torch.finfo(dtype).max ** 0.5
    return float("inf") if dtype == torch.float32 else torch.finfo(torch.float32).max


def full_direction(
    state: dict[str, Any],
    grad: Tensor,
    beta: float,
    momentum: float,
    g_bound: float,
    correction: float | Tensor,
    momentum_correction: float | Tensor,
) -> Tensor:
    """The direction r, from averages in 32 bits, which take the gradient in."""
    running_average(state["exp_avg_sq"], grad * grad, beta)
    if momentum:
        ahead = running_average(state["exp_avg"], grad, momentum)
        grad = nesterov(grad, ahead * momentum_correction, momentum)
    return direction(grad, state["exp_avg_sq"], g_bound, correction)


def few_bit_direction(
    state: dict[str, Any],
    grad: Tensor,
    beta: float,
    momentum: float,
    g_bound: float,
    correction: float | Tensor,
    momentum_correction: float | Tensor,
    bits: int,
    key: int | Tensor,
) -> Tensor:
    """The direction r, from averages in few bits, which take the gradient in and are rounded without bias.

    The numbers of a block are in units of a scale s that none of them exceeds, in the gradient's own units, so that
    gradients from 1e-30 to 1e30 are all the same. With G the block's largest gradient and hats in the new units::

        s' = sqrt(beta * s^2 + (1 - beta) * G^2)        v^ <- beta * (s / s')^2 * v^ + (1 - beta) * (g / s')^2
        s' = mu * s + (1 - mu) * G                      m^ <- mu * (s / s') * m^ + (1 - mu) * g / s'

    for squares and, with momentum, for means, and r as in 32 bits from what this makes, before it is rounded.

    Args:
        key: of the random bits: the squares have the first of its `random16`, means those behind them.
    """
    count, dtype, shape = grad.numel(), grad.dtype, grad.shape
    draw = lambda start: random16(count, key, start, grad.device)
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
        ahead = mean * (new * momentum_correction * momentum) + blocks * (1 - momentum)
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
    return flat(direction(ahead * inverse, square, g_bound, correction)).view(shape).to(dtype)


def _inverse(scale: Tensor) -> Tensor:
    """1 / scale, and no infinity where it is zero or nearly."""
    return (1 / scale).clamp(max=torch.finfo(torch.float32).max)
