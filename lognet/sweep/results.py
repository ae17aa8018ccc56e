"""Keeps finished runs in ``results.json``, which is checked on reading and replaced atomically, and in a CSV file."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..saving import write_atomically
from .data import Dataset
from .errors import SweepError
from .plan import Contender, Run, display_order, find_base, find_task, fingerprint
from .schema import SCHEMA, check

JSON_NAME, CSV_NAME, TABLES_NAME, REPORT_NAME = "results.json", "results.csv", "tables.md", "report.html"

Record = dict[str, Any]


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    import numpy
    import torch

    return {
        "lognet": installed("lognet"),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def key(record: Record) -> tuple[str, str, int]:
    """The name of a run: task, contender and seed."""
    return (record["task"], record["contender"], record["seed"])


def order(record: Record) -> tuple[Any, ...]:
    """The sort key of runs in tables."""
    return (display_order(record["task"]), Contender.of(record).order, record["seed"])


class Store:
    """The finished runs of one folder.

    Opening a store reads and checks the folder and changes nothing. The first kept run creates the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JSON_NAME
        self.commands: list[str] = []
        self.tasks: dict[str, Any] = {}
        self.records: dict[tuple[str, str, int], Record] = {}
        if folder.exists() and not folder.is_dir():
            raise SweepError(f"{folder} is not a folder; choose another --out")
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as e:
            raise SweepError(f"cannot read {self.path}: {e}") from e
        try:
            document = json.loads(text)
            check(document)
        except (ValueError, RecursionError) as e:  # SweepError and JSONDecodeError are ValueErrors
            raise SweepError(f"{self.path} is damaged: {e}; move it away or choose another --out") from e
        self.commands = document["commands"]
        self.tasks = document["tasks"]
        self.records = {key(r): r for r in document["runs"]}

    def pending(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that are not in the folder yet.

        Raises:
            SweepError: the folder holds runs of the same tasks made with other settings or data.
        """
        remedy = f"use another --out, or delete {self.folder}"
        wanted = {run.task: fingerprint(run.settings["task"]) for run in runs}
        for r in self.records.values():
            if r["task"] in wanted and fingerprint(r["settings"]["task"]) != wanted[r["task"]]:
                ours = next(run.settings["task"] for run in runs if run.task == r["task"])
                what = _difference(r["settings"]["task"], ours)
                raise SweepError(f"{self.folder} holds runs of {r['task']} with other settings ({what}); {remedy}")
        for run in runs:
            kept = self.records.get(run.key)
            if kept is not None and kept["fingerprint"] != run.fingerprint:
                what = _difference(kept["settings"]["optimizer"], run.settings["optimizer"])
                raise SweepError(
                    f"{self.folder} holds {run.task}, {run.contender.label} with other settings ({what}); {remedy}"
                )
        return [run for run in runs if run.key not in self.records]

    def describe(self, runs: Sequence[Run], datasets: dict[str, Dataset]) -> None:
        """Record what the tasks of `runs` measure and on which data. `datasets` has one entry for each base task."""
        for name in dict.fromkeys(run.task for run in runs):
            task = find_task(name)
            self.tasks[name] = {
                "title": task.title,
                "metric": task.metric,
                "unit": task.unit,
                "higher_is_better": task.higher_is_better,
                "decimals": task.decimals,
                "data": datasets[find_base(name)].description,
            }

    def keep(self, run: Run, outcome: Record) -> None:
        """Add a finished run and write everything to disk before returning."""
        self.records[run.key] = {
            "task": run.task,
            "contender": run.contender.key,
            **asdict(run.contender),
            "seed": run.seed,
            "fingerprint": run.fingerprint,
            "settings": run.settings,
            "versions": versions(),
            **outcome,
        }
        self.save()

    @property
    def runs(self) -> list[Record]:
        """All records in the order in which they are shown."""
        return sorted(self.records.values(), key=order)

    def document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "commands": self.commands,
            "versions": versions(),
            "tasks": self.tasks,
            "runs": self.runs,
        }

    def save(self) -> None:
        write_atomically(self.path, json.dumps(self.document(), indent=1, allow_nan=False) + "\n")
        write_atomically(self.folder / CSV_NAME, as_csv(self.runs))


CSV_COLUMNS = (
    "task", "contender", "optimizer", "bits", "activation", "gradient", "seed", "status", "metric_name", "metric",
    "final_training_loss", "lr", "steps", "macs", "parameters", "weight_bytes", "training_bytes",
    "seconds", "device", "fingerprint",
)  # fmt: skip


def as_csv(records: Sequence[Record]) -> str:
    out = io.StringIO()
    table = csv.DictWriter(out, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for r in records:
        row = {
            **r,
            "bits": r["bits"] or 32,
            "activation": r.get("activation") or "fp32",
            "gradient": r.get("gradient") or "fp32",
            "metric_name": find_task(r["task"]).metric,
            "final_training_loss": r["curve"]["loss"][-1] if r["curve"]["loss"] else "",
            "lr": r["settings"]["optimizer"]["lr"],
            "steps": r["settings"]["task"]["steps"],
            "parameters": r["bytes"]["parameters"],
            "weight_bytes": r["bytes"]["weights"],
            "training_bytes": r["bytes"]["training"],
        }
        table.writerow(row)
    return out.getvalue()


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The settings that differ, for a message."""
    names = [n for n in sorted({*theirs, *ours}) if theirs.get(n) != ours.get(n)]
    parts = []
    for n in names:
        if n == "data_sha256":
            parts.append("other data")
        else:
            parts.append(f"{n} {theirs.get(n)!r} there, {ours.get(n)!r} now")
    return ", ".join(parts)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one sweep at a time.

    The lock belongs to the process, so a killed process leaves no stale lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as e:
        raise SweepError(f"cannot write to {folder}: {e.strerror or e}") from e
    with lock:
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise SweepError(f"another sweep is writing to {folder}; wait for it or choose another --out") from e
        yield
