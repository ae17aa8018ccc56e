"""Running averages in few bits: a log code for every number, and a scale for every block of them.

The code is logarithmic because the averages of an optimizer differ by many orders of magnitude and only their
relative size matters. It is rounded without bias because an average with constant 0.999 moves by a thousandth in a
step, far less than a rung. Each block has a scale, which none of its numbers exceeds, because most averages are near
their neighbours in size.

A code is k, the rung below the block's scale. Signed numbers have a bit for the sign above it, and their last k means
0. Squares have no zero, because an average of squares that rounds to zero would be divided by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels.bitpack import pack, packed_bytes, unpack
from .random_bits import MIDDLE
from .ratios import rungs_for_ratio
from .tracing import cached_table, kept_whole

BLOCK = 128
"""Numbers that share a float32 scale: a quarter of a bit each."""


@dataclass(frozen=True)
class BlockFormat:
    """Numbers of `bits` bits each, in blocks of `BLOCK` with one float32 scale.

    Args:
        bits: 4, 8 or 16.
        signed: one of the bits is the sign, and there is a zero. Otherwise the numbers are positive, and those below the
            lowest rung, 0 too, are raised to it.

    Signed numbers span about ``2 * bits`` octaves below the scale of their block, unsigned ones (squares) twice as many,
    both with ``2^bits / (4 * bits)`` rungs to the octave.

    >>> format = BlockFormat(8, signed=True)
    >>> format.levels(format.encode(torch.tensor([1.0, -0.25, 0.0])), 3).tolist()
    [1.0, -0.25, 0.0]
    """

    bits: int
    signed: bool

    @property
    def base_precision(self) -> float:
        """Spacing of the rungs, in nats."""
        return math.log(2.0) * 4 * self.bits / 2**self.bits

    @property
    def last_rung(self) -> int:
        """The largest k that is a rung. The next k of signed numbers means zero."""
        return 2 ** (self.bits - self.signed) - 1 - self.signed

    @cached_table
    def table(self, device: torch.device) -> Tensor:
        """The numbers of the codes 0 .. 2^bits - 1 in units of the block's scale, float32."""
        k = torch.arange(self.last_rung + 1 + self.signed, dtype=torch.float64, device=device)
        table = kept_whole((k * -self.base_precision).exp_().to(torch.float32))
        if not self.signed:
            return table
        table = torch.where(k <= self.last_rung, table, 0)
        return torch.cat([table, -table])

    def zeros(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Codes and scales of `count` zeros."""
        code, size = 2 ** (self.bits - self.signed) - 1, packed_bytes(count, self.bits)
        scale = torch.zeros(-(-count // BLOCK), device=device)
        if self.bits == 16:
            return torch.full((count,), code - 2**15, dtype=torch.int16, device=device), scale
        return torch.full((size,), code * (1 if self.bits == 8 else 17), dtype=torch.uint8, device=device), scale

    def encode(self, units: Tensor, random16: Tensor | None = None) -> Tensor:
        """Codes of numbers in units of their block's scale, flat (bits <= 8: uint8, packed; 16: int16).

        Args:
            units: from -1 to 1, float32, any shape, flattened in order.
            random16: None rounds to the nearest rung; random integers 0 .. 2^16 - 1, int32 and of units' shape, round without
                bias.
        """
        size = units.abs()
        code = rungs_for_ratio(size, self.base_precision, random16).clamp_(0, self.last_rung)
        if self.signed:
            zero = size < ((MIDDLE if random16 is None else random16) + 1) * 2.0**-16 * self.lowest
            code = torch.where(zero, self.last_rung + 1, code) + ((units < 0).to(torch.int32) << (self.bits - 1))
        code = code.reshape(-1)
        return (code - 2**15).to(torch.int16) if self.bits == 16 else pack(code, self.bits)

    @property
    def lowest(self) -> float:
        """The lowest rung in units of the scale."""
        return math.exp(-self.last_rung * self.base_precision)

    def levels(self, codes: Tensor, count: int) -> Tensor:
        """The `count` numbers of `encode`, flat, float32."""
        code = codes.to(torch.int32) + 2**15 if self.bits == 16 else unpack(codes, self.bits, count).to(torch.int32)
        return self.table(codes).index_select(0, code)

    @staticmethod
    def blocks(values: Tensor) -> Tensor:
        """Numbers of any shape as a matrix with a row for each block; zeros fill the last one."""
        flat = values.reshape(-1)
        return torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
