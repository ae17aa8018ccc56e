"""The averages that Madam keeps for every weight, in 32 bits or fewer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..quant.block_format import BlockFormat
from ..quant.random_bits import random_words

STATE_BITS = (32, 16, 8, 4)
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}
AVERAGES = tuple(_SIGNED)


def add_average(state: dict[str, Any], name: str, like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Put an average of zeros into the state of a parameter.

    Args:
        name: "exp_avg", of gradients, or "exp_avg_sq", of their squares.
        like: a tensor of the parameter's shape, on its device.
        dtype: of 32-bit state (float64 for float64 parameters).
        bits: one of `STATE_BITS`. Below 32 there are two entries: ``state[name]``, the codes, and
            ``state[name + "_scale"]``, a float32 for every block of them; and ``state["state_bits"]``.
    """
    if bits == 32:
        state[name] = torch.zeros_like(like, dtype=dtype)
    else:
        state[name], state[name + "_scale"] = BlockFormat(bits, _SIGNED[name]).zeros(like.numel(), like.device)
        state["state_bits"] = bits


def recode_averages(state: dict[str, Any], like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Bring the averages of a parameter into `bits` bits if they have others: exactly into 32, else to nearest rungs.

    The arguments are those of `add_average`.
    """
    held = state.get("state_bits", bits if "exp_avg_sq_scale" in state else 32)
    if held == bits:
        return
    for name in [name for name in AVERAGES if name in state]:
        values = state.pop(name)
        if held != 32:
            scale = state.pop(name + "_scale")
            values = BlockFormat(held, _SIGNED[name]).decode(values, scale, like.numel()).view(like.shape).to(dtype)
        if bits == 32:
            state[name] = values
        else:
            state[name], state[name + "_scale"] = BlockFormat(bits, _SIGNED[name]).encode(values, 0.5)
    state["state_bits"] = bits
    if bits == 32:
        del state["state_bits"]


@contextmanager
def averages(state: dict[str, Any], grad: Tensor, bits: int, key: int | Tensor) -> Iterator[dict[str, Tensor]]:
    """The averages as floats of the gradient's shape and dtype; what is written into them in place is kept.

    Averages in few bits are rounded without bias on the way out, with random bits from the stream `key`.
    """
    names = [name for name in _SIGNED if name in state]
    if bits == 32:
        yield {name: state[name] for name in names}
        return
    formats = {name: BlockFormat(bits, _SIGNED[name]) for name in names}
    count = grad.numel()
    values = {
        name: format.decode(state[name], state[name + "_scale"], count).view(grad.shape).to(grad.dtype)
        for name, format in formats.items()
    }
    yield values
    words = random_words(count, key, grad.device)
    for shift, name in zip((0, 16), names, strict=False):  # one draw serves both: 16 bits each
        u = ((words >> shift & 0xFFFF) + 1).to(torch.float32).mul_(2.0**-16)
        codes, scale = formats[name].encode(values[name], u)
        state[name].copy_(codes)
        state[name + "_scale"].copy_(scale)
