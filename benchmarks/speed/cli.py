"""The command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from . import bytes_held, gpu, optimizer, reading, resident, starting, training
from .measure import SIZES, Row, Size
from .report import line_of, render

THREADS = 2
THEMES: dict[str, Callable[[Size], Iterator[Row]]] = {
    "optimizer": optimizer.rows,
    "reading": reading.rows,
    "training": training.rows,
    "bytes": bytes_held.rows,
    "memory": resident.rows,
    "import": starting.rows,
    "gpu": gpu.rows,
}
ON_A_CPU = [theme for theme in THEMES if theme != "gpu"]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Measure lognet's speed and memory.")
    p.add_argument("--size", choices=SIZES, default="full", help="sizes below full are for trials only")
    p.add_argument("--quick", action="store_const", dest="size", const="quick", help="the same as --size quick")
    p.add_argument("--themes", nargs="+", choices=THEMES, default=ON_A_CPU, help="default: all but gpu")
    p.add_argument("--out", type=Path, help="default: docs/benchmarks.md; for the gpu theme docs/benchmarks-gpu.md")
    return p


def rows_of(theme: str, size: Size) -> list[Row]:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rows = []
    for row in THEMES[theme](size):
        print(line_of(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def measure(themes: Sequence[str], size: Size) -> Iterator[Row]:
    """Each theme runs in a new process, because memory freed by one theme would spare the next the fresh pages."""
    for theme in themes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            yield from process.submit(rows_of, theme, size).result()


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    size = SIZES[args.size]
    if "gpu" in args.themes and not torch.cuda.is_available():
        parser().error("--themes gpu needs a CUDA device, and there is none here")
    out = args.out or Path("docs/benchmarks-gpu.md" if args.themes == ["gpu"] else "docs/benchmarks.md")
    found = list(measure(args.themes, size))
    again = "make bench" if args.themes == ON_A_CPU else f"python -m benchmarks.speed --themes {' '.join(args.themes)}"
    out.write_text(render(found, size, THREADS, again))
    print(f"report: {out}")
    return 0
