"""The command line.

Exit codes: 0, done; 1, a run failed; 2, the request is wrong; 130, Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lognet.saving import write_atomically

from .figure import draw
from .parts import FULL, PARTS, QUICK, Planner, Size, covered, wanted
from .pool import execute
from .report import render
from .store import Store
from .tasks import TASKS

REPORT_NAME = "quality.md"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Train Madam at several widths, Adam and SGD on small tasks, and write quality.md. Every finished run"
        " is saved at once. The same command continues where it stopped, and trains only the missing runs.",
    )
    p.add_argument("--quick", action="store_true", help="a quarter of the steps, fewer seeds, rates and widths")
    p.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help=f"any of {', '.join(TASKS)}"
    )
    p.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"any of {', '.join(PARTS)}"
    )
    p.add_argument("--out", type=Path, default=Path("quality-results"), metavar="DIR", help="default: quality-results")
    p.add_argument("--jobs", type=_count, metavar="N", help="processes (default: one for each core; 0: this process)")
    p.add_argument("--seeds", type=_positive, metavar="N", help="number of seeds; grids of rates have one (default: 3)")
    p.add_argument("--steps", type=_positive, metavar="N", help="steps of every run, for trials")
    p.add_argument("--report-only", action="store_true", help="train nothing; write the report of the finished runs")
    p.add_argument("--quiet", action="store_true", help="show no progress bar")
    return p


def _count(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    return int(word)


def _positive(word: str) -> int:
    if _count(word) == 0:
        raise argparse.ArgumentTypeError("at least 1")
    return int(word)


def make_size(quick: bool, steps: int | None, seeds: int | None) -> Size:
    base = QUICK if quick else FULL
    more = dict.fromkeys(("seeds", "ablation_seeds", "warm_up_seeds"), tuple(range(seeds))) if seeds else {}
    return replace(base, steps=steps or base.steps, **more)


def complete(planner: Planner, parts: list[str], tasks: list[str], jobs: int, quiet: bool) -> int:
    """Train until no known run is missing. Returns the number of runs trained.

    A tuned learning rate defines further runs, so planning and training alternate.
    """
    done = 0
    while pending := [run for run in wanted(planner, parts, tasks) if planner.store.get(run) is None]:
        pending.sort(key=lambda run: -run.steps)  # so that short runs fill the end
        execute(pending, jobs, planner.store.keep, quiet)
        done += len(pending)
    return done


def write_report(planner: Planner, parts: list[str], tasks: list[str], command: str) -> Path:
    folder = planner.store.folder
    report = folder / REPORT_NAME
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(report, render(planner, parts, tasks, command))
    if "lr" in parts and (drawn := covered("lr", tasks)):
        draw(planner, drawn, folder)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    tasks, parts = (
        [name for name in known if name in asked] for known, asked in ((TASKS, args.tasks), (PARTS, args.parts))
    )
    words = [*(["--quick"] if args.quick else []), *([f"--steps {args.steps}"] if args.steps else [])]
    words += [f"--seeds {args.seeds}"] if args.seeds else []
    words += [f"--tasks {' '.join(tasks)}"] if len(tasks) < len(TASKS) else []
    words += [f"--parts {' '.join(parts)}"] if len(parts) < len(PARTS) else []
    planner = Planner(make_size(args.quick, args.steps, args.seeds), Store(args.out))
    if not args.report_only:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            done = complete(planner, parts, tasks, usable if args.jobs is None else args.jobs, args.quiet)
        except KeyboardInterrupt:
            print("stopped; finished runs are kept, the same command goes on from there", file=sys.stderr)
            return 130
        print(f"{done} runs trained, the others were there already" if done else "all runs were there already")
    print(f"report: {write_report(planner, parts, tasks, ' '.join(['python -m benchmarks.quality', *words]))}")
    return 0
