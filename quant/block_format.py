"""Running averages in few bits: a log code for every number, and a scale for every block of them.

The averages of an optimizer differ by many orders of magnitude, and only their relative size matters: hence a log code.
An average with constant 0.999 moves by a thousandth a step, far less than a rung: hence rounding without bias. Most of
them are near their neighbours in size: hence a scale for each block, its largest number.

A code is k, the rung below the block's scale, and for signed numbers a bit for the sign above it; the last k means 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .bitpack import pack, unpack
from .rounding import is_traced, round_to_rungs

BLOCK = 128
"""Numbers that share a float32 scale: a quarter of a bit each."""


@dataclass(frozen=True)
class BlockFormat:
    """Numbers of `bits` bits each, in blocks of `BLOCK` with one float32 scale.

    Args:
        bits: 4, 8 or 16.
        signed: one of the bits is the sign. Otherwise the numbers are non-negative, and positive ones never round to 0.

    Signed numbers span about ``2 * bits`` octaves below the largest of their block, unsigned ones (squares) twice
    as many, both with ``2^bits / (4 * bits)`` rungs to the octave.

    >>> format = BlockFormat(8, signed=True)
    >>> codes, scale = format.encode(torch.tensor([1.0, -0.25, 0.0]), u=0.5)
    >>> format.decode(codes, scale, 3).tolist()
    [1.0, -0.25, 0.0]
    """

    bits: int
    signed: bool

    @property
    def base_precision(self) -> float:
        """Spacing of the rungs, in nats."""
        return math.log(2.0) * 4 * self.bits / 2**self.bits

    @property
    def last_code(self) -> int:
        """The k that means zero."""
        return 2 ** (self.bits - self.signed) - 1

    def rungs(self, like: Tensor) -> Tensor:
        """Values of k = 0 .. last_code in units of the block's scale, float32; signed: then all negated."""
        return (_rungs if is_traced(like) else _cached_rungs)(self, like.device)

    def zeros(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Codes and scales of `count` zeros."""
        return self.encode(torch.zeros(count, device=device), 0.5)

    def encode(self, values: Tensor, u: Tensor | float) -> tuple[Tensor, Tensor]:
        """Codes and scales of `values` (float32, any shape, finite).

        Args:
            values: flattened in order.
            u: uniform on (0, 1], the same shape, to round without bias; 1/2 rounds to the nearest rung.

        Returns:
            Codes, flat (bits <= 8: uint8, packed; 16: int16), and the scales of the blocks, float32.
        """
        blocks = self.blocks(values.to(torch.float32))
        magnitude = blocks.abs()
        scale = magnitude.amax(dim=1, keepdim=True)
        y = torch.where(scale > 0, magnitude / scale, 0)
        rungs = self.rungs(values)[: self.last_code + 1]
        if not self.signed:  # an average of squares that rounds to zero would be divided by
            y = torch.where(y > 0, y.maximum(rungs[-2]), 0)
        u = self.blocks(u) if isinstance(u, Tensor) else u
        code = round_to_rungs(y, rungs, self.base_precision, u)
        if self.signed:
            code += (blocks < 0).to(torch.int32) << (self.bits - 1)
        code = code.view(-1)[: values.numel()]
        return (code - 2**15).to(torch.int16) if self.bits == 16 else pack(code, self.bits), scale.view(-1)

    def decode(self, codes: Tensor, scale: Tensor, count: int) -> Tensor:
        """The `count` numbers of `encode`, flat, float32."""
        return (self.blocks(self.levels(codes, count)) * scale.unsqueeze(1)).view(-1)[:count]

    def levels(self, codes: Tensor, count: int) -> Tensor:
        """The `count` numbers of `encode` in units of their block's scale, flat, float32."""
        code = codes.to(torch.int32) + 2**15 if self.bits == 16 else unpack(codes, self.bits, count).to(torch.int32)
        return self.rungs(codes).index_select(0, code)

    @staticmethod
    def blocks(values: Tensor) -> Tensor:
        """Numbers of any shape as rows of `BLOCK`, zeros behind the last."""
        flat = values.reshape(-1)
        return torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)


def _rungs(format: BlockFormat, device: torch.device) -> Tensor:
    k = torch.arange(format.last_code + 1, dtype=torch.float64, device=device)
    table = (k * -format.base_precision).exp_().to(torch.float32)
    table = torch.where(k < format.last_code, table, 0)
    return torch.cat([table, -table]) if format.signed else table


_cached_rungs = lru_cache(maxsize=64)(_rungs)
