"""Detects torch.compile and torch.export. While tracing, do not call native kernels, read cached tables, or branch on values."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext


def tracing() -> bool:
    """Whether torch.compile or torch.export is making a graph.

    `torch.compiler.is_compiling` is true in Dynamo and in torch.export. Below Dynamo, where a LogTensor's operations are
    traced, PyTorch 2.6 says it by the tracing context alone.
    """
    return torch.compiler.is_compiling() or TracingContext.try_get() is not None


def compiling() -> bool:
    """Whether torch.compile, and not torch.export, is making a graph."""
    if hasattr(torch.compiler, "is_exporting"):
        return tracing() and not torch.compiler.is_exporting()
    return tracing() and not torch.compiler.is_compiling()  # which PyTorch 2.6 says of exports alone


def is_eager() -> bool:
    """Whether operations run now, on memory: nothing is traced, and no `TorchDispatchMode` (fake tensors, counters of
    operations) sees them. This is the cheapest question, which eager code asks for every operation."""
    return not torch.compiler.is_compiling() and not torch._C._len_torch_dispatch_stack()


def cached_table(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function that makes a table on a device, its last argument, take a tensor on that device instead, and cache tables.

    A graph gets the operations that make the table, on that tensor's device. Eager tables of all devices are computed on the
    CPU, because the last bit of an exponential differs from library to library.
    """

    @wraps(make)
    def table(*arguments: Any) -> Tensor:
        *names, like = arguments
        if type(like) is not Tensor or tracing():
            return make(*names, like.device)
        return _cached(make, *names, like.device)

    return table


@lru_cache(maxsize=256)
def _cached(make: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return make(*arguments[:-1], torch.device("cpu")).to(arguments[-1])


def kept_whole(table: Tensor, descending: bool = True) -> Tensor:
    """A table whose numbers are sorted already, unchanged; in a graph, an operation that Inductor computes once.

    Inductor fuses what is computed element by element into the loop that reads it, which here would be an exponential in
    float64 for every weight that is looked up. It does not fuse a sort.
    """
    return table.sort(descending=descending).values if tracing() else table
