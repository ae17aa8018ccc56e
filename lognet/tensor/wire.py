"""Planes as one row of bytes, which is how a LogTensor travels between processes: nothing is encoded twice.

The row holds the planes one after the other. Where the processes hold parts of different sizes, each plane is padded
to the size that it has in `padded_count` weights, so that all rows are equally long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..quant.kernels.bitpack import pack, packed_bytes, unpack
from .storage import LogStorage


def empty_like(storage: LogStorage, count: int, row: int) -> LogStorage:
    """A storage for `count` weights of the same ladder and scale, none of them pruned; its last weights may be padding.

    Args:
        count: a multiple of `row`.
        row: the number of weights in a row of the tensor; a bit of the pruning stands for no more than these.
    """
    like = LogStorage.from_planes(storage.format, storage.count, storage.planes(), math.gcd(storage.group, row))
    planes = {"scale": storage.scale.clone()}
    for name in storage.planes().keys() - {"scale"}:
        planes[name] = storage.low.new_full((_plane_bytes(like, name, count),), 255 * (name == "keep"))
    empty = LogStorage.from_planes(storage.format, count, planes, like.group)
    empty.has_padding = True
    return empty


def without_padding(storage: LogStorage, count: int) -> LogStorage:
    """The first `count` weights, in the same memory."""
    size = lambda name: _plane_bytes(storage, name, count)
    planes = {name: plane[: size(name)] if plane.dim() else plane for name, plane in storage.planes().items()}
    first = LogStorage.from_planes(storage.format, count, planes, storage.group)
    first.padded_count = storage.padded_count
    return first


def to_bytes(storage: LogStorage, padded_count: int | None = None) -> Tensor:
    """All planes, one after the other, as flat uint8, each padded to its size in `padded_count` weights (default: none).

    The scale of an empty storage is sent as NaN and ignored, because no checkpoint has loaded one there.
    """
    total = storage.count if padded_count is None else padded_count
    row = storage.low.new_zeros(sum(_plane_bytes(storage, name, total) for name in storage.planes()))
    for name, part in _columns(storage, row.unsqueeze(0), total):
        plane = getattr(storage, name).reshape(-1)
        if name == "scale" and storage.count == 0:
            plane = torch.full_like(plane, math.nan)
        plane = plane.view(torch.uint8)
        part[0, : plane.numel()] = plane
    return row


def take_bytes(storage: LogStorage, row: Tensor) -> None:
    """Replace codes, signs, scale and pruning by those of a storage like this one, from its `to_bytes`."""
    for name, plane in _columns(storage, row.unsqueeze(0), storage.count):
        own = getattr(storage, name)
        own.copy_(plane[0].clone().view(own.dtype).view(own.shape))


def joined(storage: LogStorage, rows: Tensor, padded_count: int) -> LogStorage:
    """The weights of several processes in one storage, from their `to_bytes`; `storage` is like each of theirs.

    Args:
        rows: uint8, (processes, bytes).
        padded_count: the argument of `to_bytes`.

    Raises:
        ValueError: the processes have different scales.
    """
    planes = {name: _join(storage, name, part, padded_count) for name, part in _columns(storage, rows, padded_count)}
    return LogStorage.from_planes(storage.format, padded_count * len(rows), planes, storage.group)


def _plane_bytes(storage: LogStorage, name: str, count: int) -> int:
    if name == "scale":
        return storage.scale.element_size()
    return packed_bytes(count // storage.group if name == "keep" else count, _width(storage, name))


def _width(storage: LogStorage, name: str) -> int:
    """Bits of a value in the plane `name`."""
    bits = storage.format.bits
    return {"low": min(bits, 8), "high": bits - 8}.get(name, 1)


def _columns(storage: LogStorage, rows: Tensor, padded_count: int) -> Iterator[tuple[str, Tensor]]:
    """The columns of each plane in rows of `to_bytes`."""
    start = 0
    for name in storage.planes():
        yield name, rows[:, start : (start := start + _plane_bytes(storage, name, padded_count))]


def _join(storage: LogStorage, name: str, rows: Tensor, padded_count: int) -> Tensor:
    """One plane of the joined storage. Rows of whole bytes are concatenated; other rows are unpacked and packed together."""
    if name == "scale":
        scales = rows.reshape(-1).clone().view(torch.float32)
        scale = scales.nan_to_num(-1).max()
        if bool(((scales != scale) & ~scales.isnan()).any()):
            raise ValueError(
                f"the parts of one LogTensor have different scales on different processes: {scales.tolist()}. Start"
                " every process from the same weights, by the same torch.manual_seed before the model is built or by"
                " loading the same file, before it is wrapped and distributed"
            )
        return scale
    width, count = _width(storage, name), padded_count // storage.group if name == "keep" else padded_count
    if count * width % 8 == 0:
        return rows.reshape(-1).clone()
    return pack(torch.cat([unpack(row, width, count) for row in rows]), width)
