"""Multiplying codes: from rung k to one of the two rungs around `ratio` times as much, drawn so that the mean is that.

With R rungs to the octave, the place is ``k - R * log2(ratio)``, and a number up to one rung is added before the fraction
is dropped. Both are fixed-point numbers, so that no rung needs to be looked up. The logarithm is a polynomial between
the powers of two, off by a 4,500th of itself at most: moves are that much too long or too short, and no rung is drawn that
is not next to the place. Float32 operations, each rounded by itself, and integers: every back end takes the same rung.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .log_format import LogFormat
from .tracing import cached, is_traced, written_down

LOG2 = (0.44269504, -0.27134003, 0.15251823, -0.04522076)
"""q of log2(1 + m) ~ m + m (1 - m) (q0 + q1 m + q2 m^2 + q3 m^3). At m = 0 and 1 the slopes are right, so that the smallest
moves, whose ratios lie next to a power of two on either side, are not too long on one of them: it would be a decay of all
weights. Of such polynomials it has the least largest error relative to log2(1 + m) and to 1 - log2(1 + m)."""

NEAREST = 2**15
"""The random bits that `rungs_for_ratio` rounds to nearest with."""


@dataclass(frozen=True)
class Spacing:
    """The constants of `rungs_for_ratio` for a distance of rungs."""

    shift: int
    """Bits of the fraction of a place: as many as 32-bit integers leave room for, 16 at most."""
    octave: float
    """-R * 2^shift * 2^-23, for the logarithm as the bits of a float have it; and its polynomial likewise."""
    q0: float
    q1: float
    q2: float
    q3: float
    zero: float
    """exp(base_precision) * 2^-15: what a signed 16-bit number is multiplied with to lie within +- the last
    rung, in units of the rung behind it."""
    bow: tuple[int, int]
    """Of the curve that `_lift` bends uniform numbers to, as fractions of 2^16."""


def spacing(base_precision: float) -> Spacing:
    """The constants for rungs that are `base_precision` apart, in nats."""
    per_octave = math.log(2.0) / base_precision
    shift = max(0, min(16, 22 - math.ceil(math.log2(per_octave))))
    unit = -per_octave * 2.0**shift
    q0, q1, q2, q3 = (unit * q * 2.0 ** -(46 + 23 * i) for i, q in enumerate(LOG2))
    return Spacing(shift, unit * 2.0**-23, q0, q1, q2, q3, math.exp(base_precision) * 2.0**-15, _bow(base_precision))


def _bow(base_precision: float) -> tuple[int, int]:
    """b0 and b1 of ln(1 + u (exp(base_precision) - 1)) / base_precision ~ u + u (1 - u) (b0 - b1 u), equal at thirds.

    The left side, for u uniform from 0 to 1, is what to add to places so that the mean is exact in value, not in the
    logarithm. The right side errs in probability by 0.0002 at half an octave from rung to rung (4 bits have a third by
    default) and by 0.01 at two (2 bits have four thirds).
    """
    slope = math.expm1(base_precision)
    third, two = ((math.log1p(u * slope) / base_precision - u) / (u * (1 - u)) for u in (1 / 3, 2 / 3))
    b1 = 3 * (third - two)
    return min(round((third + b1 / 3) * 2**16), 2**16 - 1), min(round(b1 * 2**16), 2**15 - 1)


def rungs_for_ratio(ratio: Tensor, base_precision: float, random16: Tensor | int) -> Tensor:
    """How many rungs to go down for a magnitude to become `ratio` times itself: the integers on both sides, at random.

    Args:
        ratio: float32, any shape, not negative; 0 is a way down beyond every ladder, 1 is none, whatever `random16`.
        base_precision: eta_0.
        random16: random integers 0 .. 2^16 - 1, int32 and of ratio's shape; `NEAREST` goes to the nearest rung in value.

    Returns:
        int32, ratio's shape.

    >>> rungs_for_ratio(torch.tensor([1.0, 0.5, 1.9]), math.log(2.0) / 2, NEAREST).tolist()  # two rungs to the octave
    [0, 2, -2]
    """
    s = spacing(base_precision)
    bits = ratio.view(torch.int32)
    octaves = (bits - 0x3F800000).to(torch.float32)
    m = (bits & 0x7FFFFF).to(torch.float32)
    bulge = m * (2.0**23 - m) * (((m * s.q3 + s.q2) * m + s.q1) * m + s.q0)
    place = (octaves * s.octave + bulge).round().to(torch.int32)
    return (place + (_lift(random16, s.bow) >> (16 - s.shift))) >> s.shift


def _lift(random16: Tensor | int, bow: tuple[int, int]) -> Tensor | int:
    """The curve of `_bow` in integers; each product drops its lower 16 bits."""
    bend = bow[0] - (random16 * bow[1] >> 16)
    return random16 + ((random16 * (65535 - random16) >> 16) * bend >> 16)


def inverse_rungs(ladder: LogFormat, like: Tensor) -> Tensor:
    """The rung that would follow the last one, divided by each rung k = 0 .. 2^bits - 1; float32, on `like`'s device.

    The product of two float32 numbers, one for the upper 8 bits of k, exp((k' - 2^bits) * base_precision), and one for
    the rest: tables that fit into registers.
    """
    return (_inverse_rungs if is_traced(like) else _cached_inverse_rungs)(ladder, like.device)


def _inverse_rungs(ladder: LogFormat, device: torch.device) -> Tensor:
    fine = torch.arange(2 ** max(0, ladder.bits - 8), dtype=torch.float64, device=device)
    coarse = torch.arange(-(2**ladder.bits), 0, len(fine), dtype=torch.float64, device=device)
    powers = lambda k: (k * ladder.base_precision).exp_().to(torch.float32)
    return written_down((powers(coarse).unsqueeze(1) * powers(fine)).flatten(), descending=False)


_cached_inverse_rungs = cached(_inverse_rungs)


@lru_cache(maxsize=256)
def next_rung(ladder: LogFormat) -> float:
    """The rung that would follow the last one, in units of the scale, as `inverse_rungs` has it."""
    return _inverse_rungs(ladder, torch.device("cpu"))[0].item()
