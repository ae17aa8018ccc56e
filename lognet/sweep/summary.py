"""Computes one row for each contender from its runs.

The rows depend neither on how long a run took nor on the order in which runs finished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from .plan import Contender, Task, find_task
from .results import Record


@dataclass(frozen=True)
class Row:
    """A contender on a task, over its seeds."""

    contender: Contender
    records: tuple[Record, ...]

    @property
    def values(self) -> list[float]:
        """The metric of every run that did not diverge."""
        return [r["metric"] for r in self.records if r["metric"] is not None]

    @property
    def diverged(self) -> int:
        return len(self.records) - len(self.values)

    @property
    def mean(self) -> float | None:
        return fmean(self.values) if self.values else None

    @property
    def lr(self) -> float:
        return float(self.records[0]["settings"]["optimizer"]["lr"])

    def bytes_each(self, what: str) -> float:
        """Bytes per parameter: of the ``weights`` alone, or held in ``training`` with the optimizer's state."""
        sizes = self.records[0]["bytes"]
        return sizes[what] / max(1, sizes["parameters"])


@dataclass(frozen=True)
class Difference:
    """A difference of two means, and two pooled standard errors of it where both have at least two seeds."""

    value: float
    noise: float | None

    @property
    def within_noise(self) -> bool | None:
        return None if self.noise is None else abs(self.value) <= self.noise


def difference(row: Row, other: Row | None) -> Difference | None:
    """The mean of `row` less the mean of `other`; None where there is nothing to compare."""
    if other is None or other.contender == row.contender or row.mean is None or other.mean is None:
        return None
    noise = None
    if len(row.values) > 1 and len(other.values) > 1:
        noise = 2 * math.sqrt(sum(variance(r.values) / len(r.values) for r in (row, other)))
    return Difference(row.mean - other.mean, noise)


@dataclass(frozen=True)
class TaskSummary:
    """All contenders of a task, FP32 Adam first, then from many bits to few."""

    task: Task
    rows: tuple[Row, ...]

    def row(self, key: str) -> Row | None:
        return next((r for r in self.rows if r.contender.key == key), None)

    @property
    def settings(self) -> dict[str, Any]:
        """What all runs of the task share."""
        shared: dict[str, Any] = self.rows[0].records[0]["settings"]["task"]
        return shared

    def number(self, value: float, signed: bool = False) -> str:
        value = round(value, self.task.decimals) + 0.0  # no "-0.00"
        sign = "+" if signed else ""
        return f"{value:{sign}.{self.task.decimals}f}"


def summarise(records: Sequence[Record]) -> list[TaskSummary]:
    """Group records, which `Store.runs` has put in order, by task and contender."""
    tasks: dict[str, dict[Contender, list[Record]]] = {}
    for r in records:
        tasks.setdefault(r["task"], {}).setdefault(Contender.of(r), []).append(r)
    return [
        TaskSummary(find_task(name), tuple(Row(c, tuple(rs)) for c, rs in rows.items())) for name, rows in tasks.items()
    ]
