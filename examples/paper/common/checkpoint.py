"""Checkpoints and logs of resumable runs. A killed run leaves a whole checkpoint, old or new, and a log that fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lognet.saving import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """A state of tensors, numbers, strings and containers of them, LogTensors included."""
    write_atomically(path, lambda file: torch.save(state, file))


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state, or None where there is none. Nothing in the file is executed."""
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


class Log:
    """JSON lines, one record each, with its step. Resuming drops the records after the checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        if path.exists():
            lines = path.read_text().split("\n")[:-1]  # a line without a newline is incomplete
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_atomically(path, "".join(line + "\n" for line in kept))

    def write(self, **record: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
