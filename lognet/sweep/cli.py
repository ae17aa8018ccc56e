"""The command line: ``python -m lognet.sweep``, or ``lognet sweep``.

Exit codes: 0, done; 1, a run failed; 2, the request is wrong, which one line says before anything changes; 130, Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..saving import write_atomically
from .data import Dataset
from .errors import RunFailed, SweepError, need
from .plan import DEFAULT_TASKS, TASKS, Contender, Run, contenders, find_task, load, plan, task_name
from .results import REPORT_NAME, TABLES_NAME, Store, locked
from .runner import execute
from .summary import summarise
from .tables import markdown, text
from .variants import FORMS, REAL, Variant

DESCRIPTION = """\
Train FP32 Adam, FP32 Madam and B-bit Madam side by side: same data, same order, same schedule, several seeds.
The sweep ends with a table, results.json, results.csv, tables.md and report.html.  Every finished run is saved at once.
After Ctrl-C, a crash or a power cut, the same command continues where it stopped and ends with the same table."""

EPILOG = """\
examples:
  lognet sweep                                        the default: 2 tasks, 5 contenders, 3 seeds, minutes on 2 cores
  lognet sweep --text book.txt --precisions fp32 8 6  your own text
  lognet sweep --tasks cifar10 --cifar10 ~/data       ResNet-18 on your copy of CIFAR-10 (give it a GPU)
  lognet sweep --precisions 8 8/8/8 8/fixed8/fixed8   activations and gradients in few bits too
  lognet sweep --tasks digits --model R C H M2R       layers over algebras
  lognet sweep --tasks text --model R R@32 PHM4 K4    factored layers, and a narrower network of plain ones"""


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line, like all other errors of the sweep."""

    def error(self, message: str) -> NoReturn:
        raise SweepError(f"{message} (lognet sweep -h lists the flags)")


def parser() -> argparse.ArgumentParser:
    p = _Parser(
        prog="lognet sweep",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--tasks", nargs="+", metavar="TASK", help=f"{', '.join(reversed(TASKS))} (default: digits text)")
    p.add_argument(
        "--precisions",
        nargs="+",
        default=["fp32", "12", "10", "8"],
        metavar="P",
        help="fp32 (Adam and Madam); for Madam, bits of the weights, 2 to 16, or of weights/activations/gradients, as"
        " in 8/8/8. Activations and gradients may also be fp32, fixed8, float8, e5m2 or block8 (default: fp32 12 10 8)",
    )
    p.add_argument(
        "--model",
        nargs="+",
        default=[REAL],
        metavar="M",
        help=f"the networks, each {FORMS} (default: {REAL}, plain layers of the task's own width)",
    )
    p.add_argument("--seeds", nargs="+", default=["0", "1", "2"], metavar="S", help="whole numbers (default: 0 1 2)")
    p.add_argument("--out", type=Path, default=Path("sweep-results"), metavar="DIR", help="default: sweep-results")
    p.add_argument("--text", metavar="FILE", help="train the task text on this UTF-8 file")
    p.add_argument(
        "--cifar10", metavar="DIR", help="add the task cifar10 on these standard files (cifar-10-batches-py)"
    )
    p.add_argument("--steps", type=_positive, metavar="N", help="steps of every run (default: each task's own)")
    p.add_argument("--jobs", type=_positive, metavar="N", help="runs at a time, one core each (default: all cores)")
    p.add_argument("--quiet", action="store_true", help="show no progress bar")
    return p


def _positive(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and int(word) > 0):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above 0")
    return int(word)


def _unique(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _tasks(args: argparse.Namespace) -> list[str]:
    """The requested tasks. A flag for the data of a task requests the task."""
    chosen = list(args.tasks or DEFAULT_TASKS)
    if args.text is not None:
        chosen.append("text")
    if args.cifar10 is not None:
        chosen.append("cifar10")
    for name in chosen:
        if name not in TASKS:
            raise SweepError(f"unknown task {name!r}; the tasks are {', '.join(reversed(TASKS))}")
    return _unique(chosen)


def _models(words: Sequence[str]) -> list[str]:
    return _unique([str(Variant.parse(word)) for word in words])


def _seeds(words: Sequence[str]) -> list[int]:
    for word in words:
        if not (word.isascii() and word.isdecimal() and int(word) < 2**32):
            raise SweepError(f"unknown seed {word!r}; seeds are whole numbers from 0 to 2^32 - 1")
    return [int(word) for word in _unique(words)]


def _jobs(asked: int | None, tasks: Sequence[str]) -> int:
    """How many runs to train at a time: one for each core, or one for each GPU."""
    if asked is not None:
        return asked
    if "cifar10" in tasks:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return usable or 1


def _command(args: argparse.Namespace, who: Sequence[Contender], tasks: Sequence[str], seeds: Sequence[int]) -> str:
    """The command that gives the same runs, in its normal form, for the report."""
    precisions = _unique([c.precision for c in who])
    words = ["python", "-m", "lognet.sweep", "--tasks", *tasks, "--precisions", *precisions]
    models = _models(args.model)
    words += ["--model", *models] if models != [REAL] else []
    words += ["--seeds", *map(str, seeds)]
    for flag, value in (("--text", args.text), ("--cifar10", args.cifar10), ("--steps", args.steps)):
        words += [] if value is None else [flag, str(value)]
    return shlex.join(words)


def sweep(args: argparse.Namespace) -> int:
    # Check the whole request first, so that an error leaves nothing written.
    tasks, who, seeds = _tasks(args), contenders(args.precisions), _seeds(args.seeds)
    variants = [find_task(task_name(name, model)).name for name in tasks for model in _models(args.model)]
    if importlib.util.find_spec("matplotlib") is None:  # fail before training, not after it
        raise need("matplotlib")
    store = Store(args.out)
    sources = {"text": args.text, "cifar10": args.cifar10}
    datasets = {name: load(name, sources.get(name)) for name in tasks}
    runs = plan(variants, who, seeds, datasets, sources, args.steps)
    _check_networks(runs, datasets)
    store.pending(runs)
    with locked(args.out):
        store = Store(args.out)  # read again, because now no other process writes to it
        pending = store.pending(runs)
        if pending:
            store.describe(runs, datasets)
            command = _command(args, who, tasks, seeds)
            store.commands = _unique([*store.commands, command])
            _train(store, pending, _jobs(args.jobs, tasks), already=len(runs) - len(pending), show=not args.quiet)
        return _finish(store)


def _check_networks(runs: Sequence[Run], datasets: dict[str, Dataset]) -> None:
    """Raise SweepError if a network of --model cannot be built because sizes do not fit."""
    from .train import build

    for run in {run.task: run for run in runs if run.task != run.base}.values():
        try:
            build(run, datasets[run.base])
        except ValueError as e:
            raise SweepError(f"the model of {run.task} cannot be built: {e}") from e


def _train(store: Store, pending: Sequence[Run], jobs: int, already: int, show: bool) -> None:
    if already:
        kept = f"{already} {'run is' if already == 1 else 'runs are'} kept"
        print(f"{kept} in {store.folder} already; {len(pending)} to go", file=sys.stderr)
    try:
        execute(pending, jobs, store.keep, show)
    except (KeyboardInterrupt, RunFailed, OSError):
        on_disk = Store(store.folder).records  # a full disk or a second Ctrl-C may have stopped the last one
        done = already + sum(run.key in on_disk for run in pending)
        print(
            f"lognet sweep: stopped; {done} of {already + len(pending)} runs are kept in {store.folder}."
            " The same command goes on from there.",
            file=sys.stderr,
        )
        raise


def _finish(store: Store) -> int:
    """Write the report and the tables, print the tables, and print the path of the report."""
    summaries = summarise(store.runs)
    report = store.folder / REPORT_NAME
    if not report.exists() or report.stat().st_mtime_ns <= store.path.stat().st_mtime_ns:
        from .report import render  # imports matplotlib, which a finished sweep does not need

        write_atomically(store.folder / TABLES_NAME, markdown(summaries))
        write_atomically(report, render(summaries, store))
    print(text(summaries))
    print(f"\nreport: {report}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return sweep(parser().parse_args(argv))
    except SweepError as e:
        print(f"lognet sweep: error: {e}", file=sys.stderr)
        return 2
    except (RunFailed, OSError) as e:
        print(f"lognet sweep: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
