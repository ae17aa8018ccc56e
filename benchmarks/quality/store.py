"""Keeps finished runs: one JSON file each, replaced atomically, named by the hash of its settings."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from lognet.saving import write_atomically

from .settings import Run

Record = dict[str, Any]


class Store:
    """The finished runs in one folder. The first kept run creates the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Run, Record] = {}

    def path(self, run: Run) -> Path:
        return self.folder / "runs" / f"{run.key}.json"

    def get(self, run: Run) -> Record | None:
        """The record of a run, or None if there is no file or the file is no record of this run."""
        if run not in self._read:
            with contextlib.suppress(FileNotFoundError, ValueError):  # JSONDecodeError is a ValueError
                record = json.loads(self.path(run).read_text(encoding="utf-8"))
                if isinstance(record, dict) and record.get("settings") == run.settings:
                    self._read[run] = record
        return self._read.get(run)

    def keep(self, run: Run, record: Record) -> None:
        path = self.path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
        self._read[run] = record
