"""Measures contenders by turns and makes rows of tables.

Times vary on a machine that others use too. So all contenders of a comparison run once in every round, in an order that
changes from round to round. A ratio is the median over rounds of a contender's time divided by the reference's in the
same round. Its spread is the middle half of these ratios.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP = 2  # rounds that do not count


@dataclass(frozen=True)
class Size:
    name: str
    weights: int  # of the optimizers' rows, in tensors of `tensor`
    tensor: int
    many: int  # of weights in one small tensor, and of such tensors
    grown: int  # of weights, for the growth of costs
    width: int  # of the matrix of a product
    model: int  # width of the two transformers; the one that generates is twice as wide
    tokens: int
    resident: int  # layers of the model whose memory is measured
    layer: int  # its width
    rounds: int


FULL = Size("full", 10 * 2**20, 2**20, 1000, 96 * 2**20, 4096, 512, 1024, 25, 2048, 40)
QUICK = Size("quick", 2 * 2**20, 2**20, 200, 8 * 2**20, 2048, 256, 512, 6, 1024, 10)
TOY = Size("toy", 2**12, 2**11, 4, 2**13, 64, 32, 32, 2, 64, 1)
SIZES = {size.name: size for size in (FULL, QUICK, TOY)}


@dataclass(frozen=True)
class Ratio:
    """The median of a ratio over rounds, the middle half of it, the ratio of the fastest rounds; then seconds."""

    value: float
    low: float
    high: float
    fastest: float
    seconds: float
    reference_seconds: float


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        theme: its section.
        name: what was measured, and `against` what.
        value: a ratio, or a number in `unit`; None if it could not be measured, and `note` says why.
        bound: the largest allowed value (with `at_least` the smallest); None without a bound.
        spread: the middle half of the ratios.
        fastest: the ratio of the fastest rounds, which other work on the machine disturbs least.
    """

    theme: str
    name: str
    against: str
    value: float | None
    bound: float | None = None
    at_least: bool = False
    unit: str = "x"
    spread: tuple[float, float] | None = None
    fastest: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.bound is None or self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def by_turns(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order, shuffle = list(contenders), random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds + WARM_UP):
            shuffle(order)
            for name in order:
                start = time.perf_counter()
                contenders[name]()
                elapsed = time.perf_counter() - start
                if i >= WARM_UP:
                    seconds[name].append(elapsed)
    finally:
        if collecting:
            gc.enable()
    return seconds


def ratio(seconds: list[float], reference: list[float]) -> Ratio:
    """The contender's time divided by the reference's, round by round."""
    ratios = sorted(a / b for a, b in zip(seconds, reference, strict=True))
    n = len(ratios)
    spread, fastest = (ratios[n // 4], ratios[-1 - n // 4]), min(seconds) / min(reference)
    return Ratio(statistics.median(ratios), *spread, fastest, statistics.median(seconds), statistics.median(reference))


def compare(contenders: Mapping[str, Callable[[], object]], reference: str, rounds: int) -> dict[str, Ratio]:
    """The ratios of all contenders but the reference to it."""
    seconds = by_turns(contenders, rounds)
    return {name: ratio(seconds[name], seconds[reference]) for name in contenders if name != reference}


def timed(theme: str, name: str, against: str, found: Ratio, bound: float | None = None, note: str = "") -> Row:
    """A row of a ratio of times: the contender's over the reference's."""
    times = f"{1e3 * found.seconds:.2f} ms against {1e3 * found.reference_seconds:.2f} ms"
    note = f"{times}; {note}" if note else times
    return Row(
        theme, name, against, found.value, bound, spread=(found.low, found.high), fastest=found.fastest, note=note
    )


def faster(theme: str, name: str, against: str, found: Ratio, bound: float | None = None) -> Row:
    """A row of a ratio of speeds, where the contender must be at least `bound` times faster."""
    inverse = (1 / found.value, 1 / found.high, 1 / found.low, 1 / found.fastest)
    turned = Ratio(*inverse, found.seconds, found.reference_seconds)
    row = timed(theme, name, against, turned, bound)
    return Row(**{**vars(row), "at_least": True})
