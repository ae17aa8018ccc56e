"""Quantizers by name, as command lines and files spell them: ``log8`` or ``8``, ``fixed8``, ``float8``, ``e5m2``, ``block8``."""

from __future__ import annotations

import re
from collections.abc import Callable

from .qtorch_formats import BlockQuantizer, FixedQuantizer, FloatQuantizer
from .quantizers import LogQuantizer, Quantizer

NAMES = "a number of bits (log), log8, fixed8, float8 (e4m3), e5m2 or block8, with other numbers of bits where they fit"
_OF_BITS: dict[str, Callable[..., Quantizer]] = {
    "": LogQuantizer,
    "log": LogQuantizer,
    "fixed": FixedQuantizer,
    "block": BlockQuantizer,
}


def as_quantizer(value: Quantizer | int | str, rounding: str = "nearest") -> Quantizer:
    """The quantizer that a number of bits (of the log format) or a name stands for; a quantizer is itself.

    Args:
        value: a quantizer, bits, or one of ``log8`` (or ``8``), ``fixed8``, ``block8`` with any number of bits that the
            format takes, ``float8`` (which is ``e4m3``), or ``eXmY`` with X exponent and Y mantissa bits.
        rounding: of what is made; a quantizer that is given keeps its own.

    Raises:
        TypeError: something else.
        ValueError: an unknown name, or bits that the format does not take.

    >>> as_quantizer(8), str(as_quantizer("e5m2", rounding="stochastic"))  # doctest: +ELLIPSIS
    (LogQuantizer(bits=8, base_precision=0.0433..., rounding='nearest', seed=0), 'e5m2')
    """
    if isinstance(value, Quantizer):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return LogQuantizer(value, rounding=rounding)
    if not isinstance(value, str):
        raise TypeError(f"a quantizer is one of lognet.quant, bits or a name, got {value!r}")
    if match := re.fullmatch(r"e(\d{1,2})m(\d{1,2})", "e4m3" if value == "float8" else value, re.ASCII):
        return FloatQuantizer(int(match[1]), int(match[2]), rounding=rounding)
    match = re.fullmatch(r"([a-z]*)(\d{1,2})", value, re.ASCII)
    if match is None or match[1] not in _OF_BITS:
        raise ValueError(f"unknown quantizer {value!r}; use {NAMES}")
    return _OF_BITS[match[1]](bits=int(match[2]), rounding=rounding)
