"""Writes ``quality.md``: a section with tables for each part."""

from __future__ import annotations

import re
from collections.abc import Callable

from .parts import PARTS, Planner, Row, rows, wanted
from .statistics import Sample, difference, sample
from .store import Store
from .tasks import TASKS, Metric

NONE = "-"

INTRODUCTIONS = {
    "baselines": "Every learning rate on one seed, the best (**bold**) on all seeds.",
    "bits": "Defaults of `Madam` and `lognet.wrap`, whatever the width, against SGD and Adam at their best learning rates.",
    "paper": "`Madam.paper` and the paper's ladders, against Adam at its best learning rate.",
    "lr": "One seed each; the figure sets these beside the grids of the baselines.",
    "ablation": "8 bits, one argument changed at a time, against the defaults.",
    "state": "8 bits, against an optimizer state in 32 bits. Bytes a parameter are measured, gradients apart.",
    "fine-tuning": "Float networks trained by Adam, rounded, trained on for a quarter of the steps, against the float network.",
    "signs": "8 bits, against signs that may change.",
    "horizons": "Shorter and longer runs, against Adam tuned for the same length.",
    "warm-up": "8 bits, Madam's own warm-up of so many steps, against the default.",
}

Columns = list[str]


def line(cells: Columns) -> str:
    return f"| {' | '.join(cells)} |"


def table(head: Columns, body: list[Columns]) -> list[str]:
    return [line(head), line(["---"] * len(head)), *map(line, body)]


def mean_of(s: Sample, metric: Metric) -> str:
    """The mean, and how many runs diverged or are missing."""
    words = [f"{s.mean:.{metric.decimals}f}"] if s.values else []
    words += [f"{s.diverged} diverged"] if s.diverged else []
    words += [f"{s.missing} missing"] if s.missing and s.values else []
    return ", ".join(words) or NONE


def range_of(s: Sample, metric: Metric) -> str:
    if len(s.values) < 2:
        return NONE
    worst, best = sorted(s.values, reverse=not metric.higher_is_better)[:: len(s.values) - 1]
    return f"{worst:.{metric.decimals}f} .. {best:.{metric.decimals}f}"


def judged(row: Row, store: Store) -> Columns:
    metric, s = TASKS[row.task].metric, sample(store, row.runs, row.field)
    if not row.reference:
        return [NONE, NONE]
    d = difference(s, sample(store, row.reference, row.reference_field))
    if d is None:
        return [NONE, "diverged" if s.diverged else NONE]
    noise = "" if d.noise is None else f" (± {d.noise:.{metric.decimals}f})"
    return [f"{d.value:+.{metric.decimals}f}{noise}", d.verdict(metric)]


def bytes_of(row: Row, store: Store) -> Columns:
    """Bytes a parameter: of the weights, and of weights and state."""
    records = [r for run in row.runs if (r := store.get(run)) is not None]
    if not records:
        return [NONE, NONE]
    return [f"{records[0][kind] / records[0]['parameters']:.2f}" for kind in ("weight_bytes", "training_bytes")]


def long_table(part: str, found: list[Row], planner: Planner) -> list[str]:
    store = planner.store
    head = ["task", "contender", "metric", "mean", "worst .. best", "seeds", "difference", "verdict"]
    head += ["bytes: weights", "in training"] if part == "state" else []
    body = []
    for row in found:
        metric, s = TASKS[row.task].metric, sample(store, row.runs, row.field)
        cells = [row.task, _marked(part, row, planner), metric.name, mean_of(s, metric), range_of(s, metric)]
        cells += [str(len(s.values)), *judged(row, store)]
        body.append(cells + (bytes_of(row, store) if part == "state" else []))
    return table(head, body)


def _marked(part: str, row: Row, planner: Planner) -> str:
    """The label, in bold for the best learning rate of a grid."""
    if part != "baselines":
        return row.label
    name = row.label.split(",")[0]
    rates, best = planner.grid(name, TASKS[row.task])
    if best is None or row.runs != planner.tuned(name, TASKS[row.task]):
        return row.label
    return f"**{row.label}**" + (", at the end of the grid" if best in (min(rates), max(rates)) else "")


def wide_table(found: list[Row], planner: Planner) -> list[str]:
    """A row for each task and a column for each contender, as in Tables 1 and 2 of the paper."""
    labels = list(dict.fromkeys(row.label for row in found))
    by_place = {(row.task, row.label): row for row in found}
    body = []
    for name in dict.fromkeys(row.task for row in found):
        metric = TASKS[name].metric
        cells = [mean_of(sample(planner.store, by_place[name, label].runs), metric) for label in labels]
        body.append([TASKS[name].title, metric.name, *cells])
    return table(["task", "metric", *labels], body)


def tall_table(found: list[Row], planner: Planner) -> list[str]:
    """A row for each contender and a column for each task. Differences from the reference are in the long table.

    Best learning rates differ from task to task: "best lr 0.01" and "best lr 0.03" are one contender.
    """
    short = [(row, re.sub(r"best lr .*", "best lr", row.label)) for row in found]
    by_place = {(row.task, label): row for row, label in short}
    names = list(dict.fromkeys(row.task for row in found))
    body = []
    for label in dict.fromkeys(label for _, label in short):
        rows_of = [by_place.get((name, label)) for name in names]
        cells = [
            NONE if row is None else mean_of(sample(planner.store, row.runs, row.field), TASKS[row.task].metric)
            for row in rows_of
        ]
        body.append([label, *cells])
    return table(["", *(f"{name}, {TASKS[name].metric.name}" for name in names)], body)


def tally(found: list[Row], planner: Planner) -> list[str]:
    """Counts how often each contender is better than its reference, within noise, or worse."""
    body = []
    for label in dict.fromkeys(row.label for row in found if row.reference):
        verdicts = [judged(row, planner.store)[1] for row in found if row.label == label]
        counts = [verdicts.count(word) for word in ("better", "within noise", "worse", "diverged")]
        body.append([label, *map(str, counts), str(len(verdicts) - sum(counts))])
    return table(["contender", "better", "within noise", "worse", "diverged", "undecided"], body)


def provenance(planner: Planner, parts: list[str], tasks: list[str], command: str) -> list[str]:
    """The machine and versions, and how many runs are finished."""
    runs = wanted(planner, parts, tasks)
    records = [r for run in runs if (r := planner.store.get(run)) is not None]
    distinct: Callable[[list[str]], str] = lambda words: ", ".join(dict.fromkeys(words)) or NONE
    hours = sum(r["cpu_seconds"] for r in records) / 3600
    heard = sorted({w for r in records for w in r["warnings"]})
    return [
        f"`{command}`: {len(records)} of {len(runs)} runs are in, {hours:.2f} hours of processor time;"
        f" torch {distinct([r['versions']['torch'] for r in records])}, Python"
        f" {distinct([r['versions']['python'] for r in records])}; {distinct([r['machine'] for r in records])}.",
        "",
        "Means over seeds; differences come with two pooled standard errors, and *within noise* means no larger than these.",
        *(["", "Warnings during training:", "", *(f"- {w}" for w in heard)] if heard else []),
    ]


def render(planner: Planner, parts: list[str], tasks: list[str], command: str) -> str:
    lines = ["# Quality", "", *provenance(planner, parts, tasks, command)]
    for part in [name for name in PARTS if name in parts]:
        for held_out in (False, True):
            found = [row for row in rows(planner, part, tasks) if TASKS[row.task].held_out == held_out]
            if found:
                lines += section(part, f"{part}, held-out tasks" if held_out else part, found, planner)
    return "\n".join(lines) + "\n"


def section(part: str, heading: str, found: list[Row], planner: Planner) -> list[str]:
    lines = ["", f"## {heading}", "", INTRODUCTIONS[part], ""]
    if part in ("bits", "paper"):
        lines += [*wide_table(found, planner), "", *tally(found, planner), ""]
    elif part in ("ablation", "state", "signs", "horizons", "lr", "warm-up"):
        shown = [row for row in found if ": Adam, lr" not in row.label]  # not the grids of horizons
        lines += [*tall_table(shown, planner), "", *([] if part == "lr" else [*tally(found, planner), ""])]
    lines += long_table(part, found, planner)
    return lines + (["", "![error by learning rate](learning_rates.svg)"] if part == "lr" else [])
