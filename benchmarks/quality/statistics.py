"""Means and ranges over seeds, and differences with their noise."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from .settings import Run
from .store import Store
from .tasks import Metric


@dataclass(frozen=True)
class Sample:
    """The outcomes of one contender."""

    values: tuple[float, ...]
    diverged: int = 0
    missing: int = 0

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def complete(self) -> bool:
        return bool(self.values) and not self.diverged and not self.missing


def sample(store: Store, runs: tuple[Run, ...], field: str = "metric") -> Sample:
    """The outcomes of the finished runs."""
    records = [store.get(run) for run in runs]
    found = [r[field] for r in records if r is not None]
    return Sample(tuple(v for v in found if v is not None), found.count(None), records.count(None))


@dataclass(frozen=True)
class Difference:
    """A difference of two means. The noise is two pooled standard errors, or None where a side has one seed."""

    value: float
    noise: float | None

    def verdict(self, metric: Metric) -> str:
        if self.noise is None:
            return "one seed"
        if abs(self.value) <= self.noise:
            return "within noise"
        return "worse" if metric.worse(self.value, 0.0) > 0 else "better"


def difference(a: Sample, b: Sample) -> Difference | None:
    """``a - b``; None unless both are complete."""
    if not (a.complete and b.complete):
        return None
    if min(len(a.values), len(b.values)) < 2:
        return Difference(a.mean - b.mean, None)
    variances = [statistics.variance(s.values) / len(s.values) for s in (a, b)]
    return Difference(a.mean - b.mean, 2 * math.sqrt(sum(variances)))
