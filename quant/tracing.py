"""Whether a graph is being made: it wants operations where eager code takes kernels, tables from memory and looks at values."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext


def tracing() -> bool:
    """Whether a graph is being made. PyTorch 2.6 does not say so below Dynamo, where a LogTensor is asked."""
    return torch.compiler.is_compiling() or TracingContext.try_get() is not None


def compiling() -> bool:
    """Whether it is one for torch.compile, and not a program of torch.export."""
    if hasattr(torch.compiler, "is_exporting"):
        return tracing() and not torch.compiler.is_exporting()
    return tracing() and not torch.compiler.is_compiling()  # which PyTorch 2.6 says of exports alone


def cached(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes a table, the device its last argument, with a memory. The CPU computes the tables of all devices:
    exponentials are each library's own in the last bit."""

    @lru_cache(maxsize=64)
    def table(*arguments: Any) -> Tensor:
        return make(*arguments[:-1], torch.device("cpu")).to(arguments[-1])

    return table


def is_traced(x: Tensor) -> bool:
    """Whether torch.compile is looking: its graph wants the operations that make a table, not a tensor from outside it."""
    return type(x) is not Tensor or tracing()


def written_down(table: Tensor, descending: bool = True) -> Tensor:
    """A table that is in order already, as it is; in a graph of torch.compile, one that is made once.

    Inductor takes what is computed element by element into the loop that uses it, which here would be an exponential in
    float64 for every weight that is looked up. It does not take a sort.
    """
    return table.sort(descending=descending).values if tracing() else table
