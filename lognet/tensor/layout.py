"""Which weights of a flat storage a strided tensor covers: strides, reading them, writing them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def contiguous_strides(size: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor of this size."""
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def read_weights(x: Tensor, read: Callable[..., Tensor]) -> Tensor:
    """The weights that x covers, contiguous and of x's shape.

    Args:
        x: only its shape, strides and offset are used.
        read: ``read(start, count)`` gives flat weights of the storage. It is called once. `start` is a multiple of 8,
            because packed planes have byte boundaries at every eighth weight.
    """
    if x.numel() == 0:
        return read(0, 0).view(x.shape)
    first = x.storage_offset()
    last = first + sum((length - 1) * step for length, step in zip(x.shape, x.stride(), strict=True))
    start = first // 8 * 8
    flat = read(start, last + 1 - start)
    return flat.as_strided(x.shape, x.stride(), flat.storage_offset() + first - start).contiguous()


def write_weights(x: Tensor, flat: Tensor, values: Tensor) -> Tensor:
    """Write values of x's shape to the weights that x covers in `flat`, which has every weight of the storage; returns it."""
    flat.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(values)
    return flat
