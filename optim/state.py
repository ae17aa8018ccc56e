"""The averages that Madam keeps for every weight, in 32 bits or fewer, and the direction that they give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..quant.block_format import BlockFormat
from ..quant.random_bits import random_words
from .update import direction, nesterov, root, running_average

STATE_BITS = (32, 16, 8, 4)
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}
AVERAGES = tuple(_SIGNED)


def state_format(name: str, bits: int) -> BlockFormat:
    """The format of the average `name` in fewer than 32 bits."""
    return BlockFormat(bits, _SIGNED[name])


def add_average(state: dict[str, Any], name: str, like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Put an average of zeros into the state of a parameter.

    Args:
        name: "exp_avg", of gradients, or "exp_avg_sq", of their squares.
        like: a tensor of the parameter's shape, on its device.
        dtype: of 32-bit state (float64 for float64 parameters).
        bits: one of `STATE_BITS`. Below 32 there are two entries: ``state[name]``, the codes, and
            ``state[name + "_scale"]``, a float32 for every block of them, in units of the gradient: the largest of a
            block's averages, and the root of the largest for squares, which themselves may lie beyond float32; and
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
        values, scale = state.pop(name), state.pop(name + "_scale", None)
        power = 1 if _SIGNED[name] else 2  # of the gradient's unit, which scales are in
        if scale is not None:
            values = state_format(name, held).decode(values, scale.to(dtype) ** power, like.numel()).view(like.shape)
        if bits == 32:
            state[name] = values.to(dtype)
        else:
            state[name], scale = state_format(name, bits).encode(values, 0.5)
            state[name + "_scale"] = scale if power == 1 else root(scale)
    state["state_bits"] = bits
    if bits == 32:
        del state["state_bits"]


def largest_gradient(dtype: torch.dtype, bits: int) -> float:
    """What every gradient must be smaller than: in 32 bits its square is kept, in fewer a scale in float32."""
    return torch.finfo(dtype).max ** 0.5 if bits == 32 else float("inf")


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

    The squares of a block are in units of the square of its scale, and the scale is in the gradient's own units, so
    that gradients from 1e-30 to 1e30 are all the same. With s' the larger of the scale s and the block's largest
    gradient::

        v <- beta * v * (s / s')^2 + (1 - beta) * (g / s')^2          in [0, 1]
        r <- (g / s') / sqrt(v)                                       with momentum: of the average that looks ahead

    and what is stored is v over the largest v of the block, with the scale s' * sqrt(largest).

    Args:
        key: of the random bits: one draw serves both averages, 16 bits each.
    """
    count = grad.numel()
    words = random_words(count, key, grad.device)

    def draw(shift: int) -> Tensor:
        return ((words >> shift & 0xFFFF) + 1).to(torch.float32).mul_(2.0**-16)

    ahead = grad
    if momentum:
        format = state_format("exp_avg", bits)
        mean = format.decode(state["exp_avg"], state["exp_avg_scale"], count).view(grad.shape).to(grad.dtype)
        running_average(mean, grad, momentum)
        ahead = nesterov(grad, mean * momentum_correction, momentum)
        _store(state, "exp_avg", *format.encode(mean, draw(0)))

    format = state_format("exp_avg_sq", bits)
    blocks, old = format.blocks(grad), state["exp_avg_sq_scale"].to(grad.dtype).unsqueeze(1)
    unit = blocks.abs().amax(dim=1, keepdim=True).maximum(old)
    ratio = torch.where(unit > 0, old / unit, 0)
    in_units = lambda x: torch.where(unit > 0, format.blocks(x) / unit, 0)
    square = format.blocks(format.levels(state["exp_avg_sq"], count).to(grad.dtype))
    g = in_units(grad)
    square = square * (ratio * ratio * beta) + g * g * (1 - beta)
    r = direction(in_units(ahead), square, g_bound, correction).view(-1)[:count].view(grad.shape)
    codes, largest = format.encode(square.view(-1)[:count], draw(16 if momentum else 0))
    _store(state, "exp_avg_sq", codes, unit.view(-1).to(torch.float32) * root(largest))
    return r


def _store(state: dict[str, Any], name: str, codes: Tensor, scale: Tensor) -> None:
    state[name].copy_(codes)
    state[name + "_scale"].copy_(scale)
