"""Condenses runs into one row a contender, and prints the rows as a table.

Nothing here depends on how long a run took or in which order runs finished: the same runs give the same table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from .plan import Contender, Task, find_base, find_task
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
        tasks.setdefault(r["task"], {}).setdefault(Contender(r["optimizer"], r["bits"]), []).append(r)
    return [
        TaskSummary(find_task(name), tuple(Row(c, tuple(rs)) for c, rs in rows.items())) for name, rows in tasks.items()
    ]


def cells(summary: TaskSummary) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text, for the terminal and for the report."""
    madam, adam = summary.row("madam-fp32"), summary.row("adam-fp32")
    heads = ["", "lr", "seeds", "mean", "range", "vs FP32 Madam", "vs FP32 Adam", "weights", "training"]
    if summary.task.paper:
        heads.append("paper")
    body = []
    for row in summary.rows:
        low_high = f"{summary.number(min(row.values))} .. {summary.number(max(row.values))}" if row.values else "-"
        line = [
            row.contender.label,
            f"{row.lr:g}",
            str(len(row.records)) + (f" ({row.diverged} diverged)" if row.diverged else ""),
            "diverged" if row.mean is None else summary.number(row.mean),
            low_high,
            _shown(summary, difference(row, madam)),
            _shown(summary, difference(row, adam)),
            f"{row.bytes_each('weights'):.2f}",
            f"{row.bytes_each('training'):.2f}",
        ]
        if summary.task.paper:
            line.append(summary.task.paper.get(row.contender.key, "-"))
        body.append(line)
    return heads, body


def _shown(summary: TaskSummary, d: Difference | None) -> str:
    if d is None:
        return "-"
    noise = "" if d.noise is None else f" (± {summary.number(d.noise)})"
    return summary.number(d.value, signed=True) + noise


def headline(summary: TaskSummary) -> str:
    """One line on what a task measured."""
    task, sizes = summary.task, summary.rows[0].records[0]["bytes"]
    unit = f" in {task.unit}" if task.unit else ""
    better = "higher" if task.higher_is_better else "lower"
    steps = summary.settings["steps"]
    macs = summary.rows[0].records[0]["macs"]
    size = f"{sizes['parameters']:,} parameters, {macs:,} multiply-adds an example"
    return f"{task.metric}{unit}, {better} is better; {size}, {steps:,} steps"


LEGEND = (
    "range: worst and best seed; vs: difference of means (± two pooled standard errors over seeds);\n"
    "weights, training: bytes per parameter of the weights alone, and with the optimizer's state"
)


def _aligned(heads: list[str], body: list[list[str]]) -> list[str]:
    """Lines of columns, names to the left and numbers to the right, with a rule below the heading."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in [heads, *body]
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def comparison(summaries: Sequence[TaskSummary]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """For every task with several models: one line a model, its metric at each precision beside its real width, size and work."""
    bases: dict[str, list[TaskSummary]] = {}
    for summary in summaries:
        bases.setdefault(find_base(summary.task.name), []).append(summary)
    tables = {}
    for base, variants in bases.items():
        if len(variants) > 1:
            who = sorted({row.contender for s in variants for row in s.rows}, key=lambda c: c.order)
            fewest = who[-1]
            heads = ["", *(c.label for c in who), "width", "parameters", f"bytes, {fewest.label}", "multiply-adds"]
            tables[base] = heads, [_model_line(s, who, fewest) for s in variants]
    return tables


def _model_line(summary: TaskSummary, who: Sequence[Contender], fewest: Contender) -> list[str]:
    rows = [summary.row(c.key) for c in who]
    means = ["-" if row is None or row.mean is None else summary.number(row.mean) for row in rows]
    last, first = summary.row(fewest.key), summary.rows[0].records[0]
    held = "-" if last is None else f"{last.records[0]['bytes']['weights']:,}"
    width = str(summary.settings["model"]["width"])
    return [summary.task.name, *means, width, f"{first['bytes']['parameters']:,}", held, f"{first['macs']:,}"]


def table(summaries: Sequence[TaskSummary]) -> str:
    """The table that a sweep ends with."""
    parts = []
    for summary in summaries:
        heads, body = cells(summary)
        title = f"{summary.task.name}: {summary.task.title}"
        parts.append("\n".join([title, headline(summary), "", *_aligned(heads, body)]))
    for base, (heads, body) in comparison(summaries).items():
        title = f"{base}: models compared (means over seeds; bytes of the weights)"
        parts.append("\n".join([title, "", *_aligned(heads, body)]))
    return "\n\n".join([*parts, LEGEND])
