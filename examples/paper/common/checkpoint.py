"""What a killed run leaves: a checkpoint that is the old one or the new one, whole, and a log that agrees with it."""

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
    """JSON lines, one record each, with the step they belong to; those after the checkpoint are dropped on resuming."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        if path.exists():
            lines = path.read_text().split("\n")[:-1]  # what has no newline was cut off by the kill
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_atomically(path, "".join(line + "\n" for line in kept))

    def write(self, **record: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
