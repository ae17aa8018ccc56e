"""Sharded parameters: DTensors, as FSDP2 makes them, of which each process holds a local part.

A step moves the local parts and gives the same result for any number of processes. Therefore the random bits, the typical
magnitude, the counts, and whether the step takes place at all are those of the full parameter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def any_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether one of these is a DTensor. Does not import torch.distributed.tensor: without that there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(x, module.DTensor) for x in tensors)


def is_sharded(x: Tensor) -> bool:
    """Whether x is a DTensor."""
    return any_sharded((x,))


def local(x: Any) -> Any:
    """The local part of a DTensor, which shares its memory. Anything else is returned as it is."""
    return x.to_local() if isinstance(x, Tensor) and is_sharded(x) else x  # type: ignore[attr-defined]


def full(x: Tensor) -> Tensor:
    """The full tensor. For a DTensor this is a collective operation: every process of its mesh must call it."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def sharded_alike(grad: Any, parameter: Any) -> Any:
    """A gradient with the placements of its parameter."""
    if is_sharded(parameter) and grad.placements != parameter.placements:
        return grad.redistribute(parameter.device_mesh, parameter.placements)
    return grad


def local_start(p: Tensor) -> int:
    """The number, in the full tensor, of the first element of p's local part; 0 if p is not sharded.

    LogTensors are sharded over their first dimension only, so a local part is a range of rows.
    """
    if not is_sharded(p):
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)  # type: ignore[attr-defined]
    return offset[0] * p.stride(0)


def combine(numbers: Sequence[Tensor], params: Sequence[Tensor], operation: str) -> list[Tensor]:
    """Reduce numbers of local parts to numbers of the full parameters. Numbers of other parameters stay as they are.

    Parameters that are sharded alike share one collective operation.

    Args:
        numbers: a tensor for each parameter, all of one shape and dtype, on its device.
        params: the parameters. All processes must name the same ones in the same order.
        operation: "sum" or "max".
    """
    result, alike = list(numbers), {}  # type: ignore[var-annotated]
    for i, p in enumerate(params):
        if is_sharded(p):
            alike.setdefault((p.device_mesh, p.placements), []).append(i)  # type: ignore[attr-defined]
    for (mesh, placements), indices in alike.items():
        from torch.distributed.tensor import DTensor, Partial, Replicate

        kinds = [Replicate() if placement.is_replicate() else Partial(operation) for placement in placements]
        mine = torch.stack([numbers[i] for i in indices])
        totals = DTensor.from_local(mine, mesh, kinds, run_check=False).full_tensor()
        for i, total in zip(indices, totals, strict=True):
            result[i] = total
    return result
