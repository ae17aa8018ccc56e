"""Multiplying codes: from rung k to one of the two rungs around `ratio` times its value, drawn so that the mean is
that value.

With R rungs to the octave, the new position is ``k - R * log2(ratio)``. A random number from 0 to 1 is added, and the
fraction is dropped. Both numbers are fixed-point, so that no table of rungs is searched. The logarithm is a
polynomial between the powers of two, with a relative error of at most 1/4500: moves are that much too long or too
short, and only the two rungs next to the position are ever drawn. All is done in float32 operations, each rounded by
itself, and integers, so that every back end takes the same rung.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .log_format import LogFormat
from .random_bits import MIDDLE
from .tracing import cached_table, kept_whole

LOG2 = (0.44269504, -0.27134003, 0.15251823, -0.04522076)
"""q of log2(1 + m) ~ m + m (1 - m) (q0 + q1 m + q2 m^2 + q3 m^3).

Its slopes at m = 0 and 1 are exact, because the smallest moves have ratios next to a power of two on either side: if those on one
side were too long, all weights would decay. Of the polynomials with exact slopes it has the least largest error relative to
log2(1 + m) and to 1 - log2(1 + m)."""


@dataclass(frozen=True)
class Spacing:
    """The constants of `rungs_for_ratio` for a distance of rungs."""

    shift: int
    """Bits of the fraction of a position: as many as fit into 32-bit integers, 16 at most."""
    octave: float
    """-R * 2^shift * 2^-23, for the bits of a float as a logarithm; q0 to q3 are the polynomial in the same unit."""
    q0: float
    q1: float
    q2: float
    q3: float
    zero: float
    """exp(base_precision) * 2^-15: times a signed 16-bit number it lies between the last rung and its negative, in units of the
    rung that would follow the last."""
    curve: tuple[int, int]
    """The coefficients of `_curved`, as fractions of 2^16."""


def spacing(base_precision: float) -> Spacing:
    """The constants for rungs that are `base_precision` apart, in nats."""
    per_octave = math.log(2.0) / base_precision
    shift = max(0, min(16, 22 - math.ceil(math.log2(per_octave))))
    unit = -per_octave * 2.0**shift
    q0, q1, q2, q3 = (unit * q * 2.0 ** -(46 + 23 * i) for i, q in enumerate(LOG2))
    return Spacing(shift, unit * 2.0**-23, q0, q1, q2, q3, math.exp(base_precision) * 2.0**-15, _curve(base_precision))


def _curve(base_precision: float) -> tuple[int, int]:
    """b0 and b1 of ln(1 + u (exp(base_precision) - 1)) / base_precision ~ u + u (1 - u) (b0 - b1 u), equal at thirds.

    The left side, for u uniform from 0 to 1, is the number to add to a position so that the mean is exact in value and not in the
    logarithm. The right side errs in probability by 0.0002 at half an octave from rung to rung (4 bits have a third by
    default) and by 0.01 at two (2 bits have four thirds).
    """
    slope = math.expm1(base_precision)
    third, two = ((math.log1p(u * slope) / base_precision - u) / (u * (1 - u)) for u in (1 / 3, 2 / 3))
    b1 = 3 * (third - two)
    return min(round((third + b1 / 3) * 2**16), 2**16 - 1), min(round(b1 * 2**16), 2**15 - 1)


def rungs_for_ratio(ratio: Tensor, base_precision: float, random16: Tensor | None = None) -> Tensor:
    """The number of rungs to go down for a magnitude to become `ratio` times itself: one of the two integers around it.

    Args:
        ratio: float32, any shape, not negative. 0 goes down beyond every ladder; 1 does not move, whatever `random16` is.
        base_precision: eta_0.
        random16: None goes to the nearest rung in value. Random integers 0 .. 2^16 - 1, int32 and of ratio's shape, draw one of
            the two such that the mean is exact in value.

    Returns:
        int32, ratio's shape.

    >>> rungs_for_ratio(torch.tensor([1.0, 0.5, 1.9]), math.log(2.0) / 2).tolist()  # two rungs to the octave
    [0, 2, -2]
    """
    s = spacing(base_precision)
    bits = ratio.view(torch.int32)
    octaves = (bits - 0x3F800000).to(torch.float32)
    m = (bits & 0x7FFFFF).to(torch.float32)
    correction = m * (2.0**23 - m) * (((m * s.q3 + s.q2) * m + s.q1) * m + s.q0)
    position = (octaves * s.octave + correction).round().to(torch.int32)
    return (position + (_curved(MIDDLE if random16 is None else random16, s.curve) >> (16 - s.shift))) >> s.shift


def _curved(random16: Tensor | int, curve: tuple[int, int]) -> Tensor | int:
    """The curve of `_curve` at 16-bit fractions u, in integers; each product drops its lower 16 bits."""
    coefficient = curve[0] - (random16 * curve[1] >> 16)
    return random16 + ((random16 * (65535 - random16) >> 16) * coefficient >> 16)


@cached_table
def inverse_rungs(ladder: LogFormat, device: torch.device) -> Tensor:
    """The rung that would follow the last one, divided by each rung k = 0 .. 2^bits - 1, float32.

    The product of two float32 numbers, one for the upper 8 bits of k, exp((k' - 2^bits) * base_precision), and one for
    the rest: tables that fit into registers.
    """
    fine = torch.arange(2 ** max(0, ladder.bits - 8), dtype=torch.float64, device=device)
    coarse = torch.arange(-(2**ladder.bits), 0, len(fine), dtype=torch.float64, device=device)
    powers = lambda k: (k * ladder.base_precision).exp_().to(torch.float32)
    return kept_whole((powers(coarse).unsqueeze(1) * powers(fine)).flatten(), descending=False)


@lru_cache(maxsize=256)
def next_rung(ladder: LogFormat) -> float:
    """The rung that would follow the last one, in units of the scale, as `inverse_rungs` has it."""
    return inverse_rungs(ladder, torch.empty(0))[0].item()
