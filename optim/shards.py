"""Parameters of which each process holds a part (DTensor, as FSDP2 makes them): what an optimizer must know of the whole.

A step moves the local parts, and is that of the whole parameter: its random bits, its typical magnitude, the totals and
whether it takes place at all are the same however many processes share it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def is_sharded(x: Tensor) -> bool:
    """Whether x is a DTensor; without an import of what is not in use."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def part(x: Any) -> Any:
    """The part of a tensor that this process holds, sharing its memory; anything else as it is."""
    return x.to_local() if isinstance(x, Tensor) and is_sharded(x) else x  # type: ignore[attr-defined]


def whole(x: Tensor) -> Tensor:
    """All of a tensor. Every process that holds a part must ask."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def gradient(p: Tensor) -> Tensor:
    """p's gradient, detached, sharded as p is."""
    grad: Any = p.grad.detach()  # type: ignore[union-attr]
    if is_sharded(p) and grad.placements != p.placements:  # type: ignore[attr-defined]
        grad = grad.redistribute(p.device_mesh, p.placements)  # type: ignore[attr-defined]
    return grad


def part_start(p: Tensor) -> int:
    """The number, in the whole, of the first element of p's local part: 0 for what is not sharded.

    A part is some of the rows: LogTensors are sharded over their first dimension only.
    """
    if not is_sharded(p):
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)  # type: ignore[attr-defined]
    return offset[0] * p.stride(0)


def over_parts(numbers: Sequence[Tensor], params: Sequence[Tensor], operation: str) -> list[Tensor]:
    """Numbers of each parameter's local part made those of the whole, in one exchange for all that are sharded alike.

    Args:
        numbers: a tensor for each parameter, of one shape and dtype, on its device.
        params: those parameters. All processes must name the same ones in the same order.
        operation: "sum" or "max".
    """
    result, alike = list(numbers), {}  # type: ignore[var-annotated]
    for i, p in enumerate(params):
        if is_sharded(p):
            alike.setdefault((p.device_mesh, p.placements), []).append(i)  # type: ignore[attr-defined]
    for (mesh, placements), places in alike.items():
        from torch.distributed.tensor import DTensor, Partial, Replicate

        kinds = [Replicate() if placement.is_replicate() else Partial(operation) for placement in placements]
        mine = torch.stack([numbers[i] for i in places])
        for i, total in zip(places, DTensor.from_local(mine, mesh, kinds, run_check=False).full_tensor(), strict=True):
            result[i] = total
    return result
