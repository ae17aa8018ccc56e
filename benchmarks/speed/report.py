"""Writes docs/benchmarks.md: the machine, and a table for each theme."""

from __future__ import annotations

import datetime
import os
import platform

import torch

from .measure import Row, Size

INTRODUCTION = """\
Numbers without a unit are ratios, because times on a busy machine vary. In every round of a comparison each contender
runs once, in an order that changes from round to round. A ratio is the median over rounds of the contender's time
divided by the reference's time in the same round. *Middle half* is the middle half of these ratios, and *fastest* is
the ratio of the fastest times.

`{}` measures all of it again."""
HEAD = ["measured", "against", "value", "middle half", "fastest", "must be", "reached", "times"]


def number(value: float, unit: str) -> str:
    return f"{value:.2f}" + ("" if unit == "x" else f" {unit}")


def cells(row: Row) -> list[str]:
    value = "-" if row.value is None else number(row.value, row.unit)
    spread = "-" if row.spread is None else " .. ".join(f"{v:.2f}" for v in row.spread)
    fastest = "-" if row.fastest is None else f"{row.fastest:.2f}"
    bound = "-" if row.bound is None else f"{'>=' if row.at_least else '<='} {number(row.bound, row.unit)}"
    reached = {True: "yes", False: "**no**", None: "-"}[row.reached]
    return [row.name, row.against, value, spread, fastest, bound, reached, row.note or "-"]


def line_of(row: Row) -> str:
    return f"| {' | '.join(cells(row))} |"


def machine(threads: int) -> str:
    """The parts of the machine that matter for speed."""
    capability = torch.backends.cpu.get_cpu_capability()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    version = torch.__version__.split("+")[0]
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return (
        f"{gpu}{cores} cores ({platform.machine()}, {capability}), {threads} threads, PyTorch {version},"
        f" Python {platform.python_version()}"
    )


def render(rows: list[Row], size: Size, threads: int, command: str) -> str:
    lines = ["# Speed and memory", "", INTRODUCTION.format(command), ""]
    lines += [f"{datetime.date.today()}: {machine(threads)}. Sizes: {size.name}.", ""]
    if missed := [row for row in rows if row.reached is False]:
        lines += [f"{len(missed)} of {sum(row.reached is not None for row in rows)} bounds are not reached.", ""]
    for theme in dict.fromkeys(row.theme for row in rows):
        lines += [f"## {theme}", "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
        lines += [*(line_of(row) for row in rows if row.theme == theme), ""]
    return "\n".join(lines)
