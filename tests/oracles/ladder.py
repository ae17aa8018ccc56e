"""The ladder, one number at a time, in Python floats. It is slow and independent of lognet."""

from __future__ import annotations

import math
import struct
from decimal import Decimal, getcontext


def float32(x: float) -> float:
    return struct.unpack("f", struct.pack("f", x))[0]


def rung(k: int, scale: float, base_precision: float) -> float:
    """Section 4.1: sigma* e^(-k eta_0)."""
    return scale * math.exp(-k * base_precision)


def nearest_rung(x: float, scale: float, base_precision: float, bits: int) -> int:
    """The rung closest to |x| in log space, found by trying every rung."""
    distance = lambda k: abs(math.log(abs(x)) - math.log(rung(k, scale, base_precision)))
    return min(range(2**bits), key=distance)


def rounded_rung(x: float, scale: float, base_precision: float, bits: int, u: float) -> int | None:
    """floor(position + u), clamped, in fifty decimal digits; None if float64 cannot tell which side of a change it is."""
    if x == 0:
        return 2**bits - 1
    getcontext().prec = 50
    place = -(Decimal(abs(x)) / Decimal(scale)).ln() / Decimal(base_precision) + Decimal(u)
    if abs(place - round(place)) * Decimal(base_precision) < Decimal("1e-13"):
        return None
    return max(0, min(2**bits - 1, math.floor(place)))
