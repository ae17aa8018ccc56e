"""Codes of any width from 1 to 16 bits in flat byte planes, with no padding but the last byte's.

Layout of n codes of B bits (little-endian bit streams; value i of width w occupies bits i*w .. i*w + w - 1)::

    B <= 8    low : the B bits of every code, one stream                (8 bits: simply one byte a code)
    B >  8    low : the low 8 bits, one byte a code
              high: the high B - 8 bits of every code, one stream

Whole bytes stay byte-addressable because a table lookup and a vector load need that. Only the other bits are packed. Eight
values of width w are exactly w bytes, so everything below works on groups of eight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import operation


def packed_bytes(count: int, width: int) -> int:
    """Bytes that `count` values of `width` bits take.

    >>> packed_bytes(10, 3)
    4
    """
    return (count * width + 7) // 8


def check_start(start: int) -> None:
    """Raise ValueError unless every plane has a byte boundary at the weight `start`."""
    if start % 8:
        raise ValueError(f"start must be a multiple of 8, got {start}")


def _padded(flat: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """`flat` as a matrix with rows of `length` numbers, the last one filled with zeros."""
    count = flat.numel()
    if count % length == 0:
        return flat.to(dtype).view(-1, length)
    padded = torch.zeros((count + length - 1) // length, length, dtype=dtype, device=flat.device)
    padded.view(-1)[:count] = flat
    return padded


def _shifts(count: int, step: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(0, count * step, step, dtype=dtype, device=device)


@operation(tensors=1)
def pack(values: Tensor, width: int) -> Tensor:
    """Pack integers in [0, 2^width), any shape, into a flat uint8 stream of `packed_bytes(numel, width)` bytes.

    >>> pack(torch.tensor([1, 2, 3, 4]), 4).tolist()
    [33, 67]
    """
    flat = values.reshape(-1)
    if width == 8:
        return flat.to(torch.uint8, copy=True)  # never the caller's own memory
    if 8 % width == 0:  # whole values in every byte: stay in bytes
        lanes = _padded(flat, 8 // width, torch.uint8)
        return (lanes << _shifts(8 // width, width, torch.uint8, flat.device)).sum(dim=1, dtype=torch.uint8)
    words = _padded(flat, 8, torch.int64) << _shifts(8, width, torch.int64, flat.device)
    words = words.sum(dim=1, keepdim=True)  # 8 * width <= 56 bits: no overlap, so the sum is an "or"
    stream = (words >> _shifts(width, 8, torch.int64, flat.device)).to(torch.uint8)
    return stream.reshape(-1)[: packed_bytes(flat.numel(), width)].clone()


@operation(tensors=1)
def unpack(stream: Tensor, width: int, count: int, start: int = 0) -> Tensor:
    """The values `start` .. `start + count - 1` of a `pack`ed stream, as a flat uint8 tensor.

    `start` must be a multiple of 8, where the stream has a byte boundary.

    >>> unpack(pack(torch.tensor([5, 0, 7]), 3), 3, 3).tolist()
    [5, 0, 7]
    """
    check_start(start)
    first = start // 8 * width
    if width == 8:
        return stream[first : first + count].clone()
    used = stream[first : first + packed_bytes(count, width)]
    if 8 % width == 0:
        values = used.unsqueeze(1) >> _shifts(8 // width, width, torch.uint8, stream.device)
        return values.bitwise_and_(2**width - 1).reshape(-1)[:count]
    words = _padded(used, width, torch.int64) << _shifts(width, 8, torch.int64, stream.device)
    words = words.sum(dim=1, keepdim=True)
    values = (words >> _shifts(8, width, torch.int64, stream.device)) & (2**width - 1)
    return values.to(torch.uint8).reshape(-1)[:count]


@operation(tensors=1)
def pack_codes(codes: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    """Pack codes in [0, 2^bits), bits 1 to 16, into the planes `(low, high)`; `high` is None up to 8 bits."""
    if bits <= 8:
        return pack(codes, bits), None
    return pack(codes & 0xFF, 8), pack(codes >> 8, bits - 8)


@operation(tensors=2)
def unpack_codes(low: Tensor, high: Tensor | None, bits: int, count: int, start: int = 0) -> Tensor:
    """The codes `start` .. `start + count - 1` of the planes, as a flat int32 tensor; `start` is a multiple of 8."""
    codes = unpack(low, min(bits, 8), count, start).to(torch.int32)
    return codes if high is None else codes + (unpack(high, bits - 8, count, start).to(torch.int32) << 8)
