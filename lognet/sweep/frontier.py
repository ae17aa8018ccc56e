"""Bytes against the metric: factored networks compared with plain networks of equal bytes.

A plain network may be narrower, shallower or of fewer bits. The best ones form a frontier of bytes against the metric.
A factored network beats plain ones if its metric is better than the frontier's at its own bytes. The frontier is
interpolated between two neighbours, linearly in the logarithm of the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import variance

from .plan import Contender, find_base, find_variant
from .summary import Difference, TaskSummary
from .variants import Variant


@dataclass(frozen=True)
class Point:
    """A network at a precision: the bytes of its weights, the mean of its metric and the mean's variance."""

    variant: Variant
    contender: Contender
    bytes: int
    value: float
    variance: float | None
    """Of the mean over seeds; None with one seed."""


@dataclass(frozen=True)
class Comparison:
    """A point and its differences to the plain frontiers, None where no plain network is as small."""

    point: Point
    same_precision: Difference | None
    any_precision: Difference | None


@dataclass(frozen=True)
class Field:
    """All networks of one task: its points by precision, the plain frontiers, and what is to be compared."""

    base: TaskSummary
    points: tuple[Point, ...]

    @property
    def contenders(self) -> list[Contender]:
        return sorted({p.contender for p in self.points}, key=lambda c: c.order)

    def frontier(self, contender: Contender | None = None) -> list[Point]:
        """The plain networks that are better than all smaller plain ones, by bytes; of one contender or of all."""
        best: list[Point] = []
        plain = [p for p in self.points if p.variant.plain and contender in (None, p.contender)]
        for point in sorted(plain, key=lambda p: (p.bytes, self._loss(p))):
            if not best or self._loss(point) < self._loss(best[-1]):
                best.append(point)
        return best

    def comparisons(self) -> list[Comparison]:
        """Every network that is not plain against plain ones of equal bytes, from many bytes to few."""
        everything = self.frontier()
        return [
            Comparison(p, against(p, self.frontier(p.contender)), against(p, everything))
            for p in sorted(self.points, key=lambda p: -p.bytes)
            if not p.variant.plain
        ]

    def beats(self, difference: Difference | None) -> bool:
        """Whether a difference is for the better, by more than the seeds' noise where there are several."""
        if difference is None or difference.within_noise:
            return False
        return (difference.value > 0) == self.base.task.higher_is_better and difference.value != 0

    def smallest_winner(self) -> Comparison | None:
        """The smallest network that beats plain ones of equal bytes, of whatever precision."""
        return next((c for c in reversed(self.comparisons()) if self.beats(c.any_precision)), None)

    def _loss(self, point: Point) -> float:
        return -point.value if self.base.task.higher_is_better else point.value


def against(point: Point, frontier: Sequence[Point]) -> Difference | None:
    """A point's value less the frontier's at the same bytes; None below the smallest plain network.

    Above the largest plain network, the frontier is constant. The noise is two standard errors of the difference; the
    errors of both neighbours have the weights of their values.
    """
    if not frontier or point.bytes < frontier[0].bytes:
        return None
    parts = [(frontier[-1], 1.0)]
    for low, high in pairwise(frontier):
        if low.bytes <= point.bytes < high.bytes:
            share = math.log(point.bytes / low.bytes) / math.log(high.bytes / low.bytes)
            parts = [(low, 1 - share), (high, share)]
    noise = None
    variances = [(point.variance, 1.0), *((p.variance, share) for p, share in parts)]
    if all(v is not None for v, _ in variances):
        noise = 2 * math.sqrt(sum((v or 0.0) * share**2 for v, share in variances))
    return Difference(point.value - sum(p.value * share for p, share in parts), noise)


def fields(summaries: Sequence[TaskSummary]) -> dict[str, Field]:
    """The tasks that have both plain networks and others, by name."""
    points: dict[str, list[Point]] = {}
    first: dict[str, TaskSummary] = {}
    for summary in summaries:
        base = find_base(summary.task.name)
        first.setdefault(base, summary)
        for row in summary.rows:
            if row.mean is None:
                continue  # all of its runs diverged
            spread = variance(row.values) / len(row.values) if len(row.values) > 1 else None
            size = row.records[0]["bytes"]["weights"]
            point = Point(find_variant(summary.task.name), row.contender, size, row.mean, spread)
            points.setdefault(base, []).append(point)
    return {
        base: Field(first[base], tuple(found))
        for base, found in points.items()
        if len({p.variant.plain for p in found}) == 2
    }
