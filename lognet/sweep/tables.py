"""The tables of a sweep as headings and rows of text, for the terminal, the report and, in Markdown, for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..text import aligned
from .frontier import Comparison, Field, fields
from .plan import Contender, find_base
from .summary import Difference, TaskSummary, difference


class Table(NamedTuple):
    """A heading, one cell a column, and rows of as many cells."""

    heads: list[str]
    body: list[list[str]]


def cells(summary: TaskSummary) -> Table:
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
            shown(summary, difference(row, madam)),
            shown(summary, difference(row, adam)),
            f"{row.bytes_each('weights'):.2f}",
            f"{row.bytes_each('training'):.2f}",
        ]
        if summary.task.paper:
            line.append(summary.task.paper.get(row.contender.key, "-"))
        body.append(line)
    return Table(heads, body)


def shown(summary: TaskSummary, d: Difference | None) -> str:
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


def comparison(summaries: Sequence[TaskSummary]) -> dict[str, Table]:
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
            tables[base] = Table(heads, [_model_line(s, who, fewest) for s in variants])
    return tables


def _model_line(summary: TaskSummary, who: Sequence[Contender], fewest: Contender) -> list[str]:
    rows = [summary.row(c.key) for c in who]
    means = ["-" if row is None or row.mean is None else summary.number(row.mean) for row in rows]
    last, first = summary.row(fewest.key), summary.rows[0].records[0]
    held = "-" if last is None else f"{last.records[0]['bytes']['weights']:,}"
    width = str(summary.settings["model"]["width"])
    return [summary.task.name, *means, width, f"{first['bytes']['parameters']:,}", held, f"{first['macs']:,}"]


def equal_bytes(field: Field) -> Table:
    """Compares every network that is not plain with plain ones of equal bytes, from many bytes to few."""
    heads = ["", "precision", "bytes", field.base.task.metric, "vs plain, same precision", "vs plain, any precision"]
    return Table([*heads, "beats plain"], [_equal_line(field, c) for c in field.comparisons()])


def _equal_line(field: Field, found: Comparison) -> list[str]:
    point, summary = found.point, field.base
    if found.any_precision is None:
        verdict = "none so small"
    elif field.beats(found.any_precision):
        verdict = "yes"
    else:
        verdict = "at this precision" if field.beats(found.same_precision) else "no"
    differences = [shown(summary, d) for d in (found.same_precision, found.any_precision)]
    value = summary.number(point.value)
    return [str(point.variant), point.contender.label, f"{point.bytes:,}", value, *differences, verdict]


def conclusion(field: Field) -> str:
    """The smallest network that beats plain ones, in a sentence."""
    found = field.smallest_winner()
    if found is None or found.any_precision is None:
        return "No factored network beats plain ones of equal bytes."
    point, summary = found.point, field.base
    plain = summary.number(point.value - found.any_precision.value)
    return (
        f"The smallest that beats plain ones of equal bytes: {point.variant}, {point.contender.label},"
        f" {point.bytes:,} bytes: {summary.number(point.value)} against {plain}."
    )


LEGEND = (
    "range: worst and best seed; vs: difference of means (± two pooled standard errors over seeds);\n"
    "weights, training: bytes per parameter of the weights alone, and with the optimizer's state"
)
FRONTIER_LEGEND = (
    "bytes: of the weights; vs plain: difference to plain layers of equal bytes, read off between the nearest of the\n"
    "best plain networks of other widths and depths (± two standard errors), of the same precision or of any"
)


def text(summaries: Sequence[TaskSummary]) -> str:
    """The text that a sweep prints at its end."""
    parts = []
    for summary in summaries:
        title = f"{summary.task.name}: {summary.task.title}"
        parts.append("\n".join([title, headline(summary), "", *_lines(cells(summary))]))
    for base, table in comparison(summaries).items():
        title = f"{base}: models compared (means over seeds; bytes of the weights)"
        parts.append("\n".join([title, "", *_lines(table)]))
    parts.append(LEGEND)
    for base, field in fields(summaries).items():
        title = f"{base}: against plain layers of equal bytes"
        parts.append("\n".join([title, "", *_lines(equal_bytes(field)), "", conclusion(field), FRONTIER_LEGEND]))
    return "\n\n".join(parts)


def markdown(summaries: Sequence[TaskSummary]) -> str:
    """The same tables for a page of documentation."""
    parts = [f"## {s.task.name}: {s.task.title}\n\n{headline(s)}\n\n{_piped(cells(s))}" for s in summaries]
    for base, table in comparison(summaries).items():
        parts.append(f"## {base}: models compared\n\nMeans over seeds; bytes of the weights.\n\n{_piped(table)}")
    for base, field in fields(summaries).items():
        lines = [_piped(equal_bytes(field)), conclusion(field), FRONTIER_LEGEND.replace("\n", " ")]
        parts.append("\n\n".join([f"## {base}: against plain layers of equal bytes", *lines]))
    return "\n\n".join(parts) + "\n"


def _lines(table: Table) -> list[str]:
    return aligned([table.heads, *table.body], rule=True)


def _piped(table: Table) -> str:
    rule = ["---", *["--:"] * (len(table.heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [table.heads, rule, *table.body])
