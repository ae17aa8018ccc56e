"""The bytes that tensors, models and optimizers hold in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..tensor.log_tensor import LogTensor


def held_bytes(*holders: Any) -> int:
    """Bytes of memory that tensors, models and optimizers hold, shared blocks counted once.

    A LogTensor counts with its packed planes, not with the dense tensor that it stands for.

    Args:
        holders: tensors of any shape, modules (parameters and buffers), optimizers (their state) and containers or
            iterators of them. Gradients are not counted.

    >>> held_bytes(torch.zeros(10)), held_bytes(LogTensor.from_float(torch.ones(16), bits=8))
    (40, 22)
    """
    storages = [tensor.untyped_storage() for tensor in _tensors(holders)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}.values())


def _tensors(holder: Any) -> Iterator[Tensor]:
    """Every plain tensor inside `holder`."""
    if isinstance(holder, LogTensor):
        yield from holder._storage.planes().values()
    elif isinstance(holder, Tensor):
        yield holder.detach()
    elif isinstance(holder, torch.nn.Module):
        yield from _tensors([*holder.parameters(), *holder.buffers()])
    elif isinstance(holder, torch.optim.Optimizer):
        yield from _tensors(list(holder.state.values()))
    elif isinstance(holder, dict):
        yield from _tensors(list(holder.values()))
    elif isinstance(holder, Iterable) and not isinstance(holder, (str, bytes)):
        for item in holder:
            yield from _tensors(item)
