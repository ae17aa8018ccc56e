"""A worker process: reads runs as JSON lines on stdin, trains them, writes progress and records on stdout.

When stdin ends, because the parent has finished or was killed, the worker exits at once. So even ``kill -9`` of a sweep
leaves no process running.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any, TextIO

REPORT_EVERY = 0.2
"""Seconds between two progress lines."""


def _read(lines: queue.Queue[str]) -> None:
    """Feed the lines of stdin to the main thread, and end the process when the parent is gone."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


class Channel:
    """Events to the parent, one JSON object a line; a broken pipe ends the process."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.last = 0.0

    def send(self, event: str, **content: Any) -> None:
        try:
            self.out.write(json.dumps({"event": event, **content}, allow_nan=False) + "\n")
            self.out.flush()
        except OSError:
            os._exit(0)

    def progress(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.last >= REPORT_EVERY:
            self.last = now
            self.send("progress", step=step, loss=loss)


def main() -> None:
    # Only the channel writes to the real stdout. What libraries print goes to stderr.
    channel = Channel(os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    try:
        import torch

        from .plan import Run, load
        from .train import train

        # One thread, because the order of a sum, and so the last bit of a result, must not depend on the number of cores.
        torch.set_num_threads(1)
        datasets: dict[tuple[str, str | None], Any] = {}
        while True:
            run = Run.from_json(json.loads(lines.get()))
            where = (run.base, run.source)
            if where not in datasets:
                datasets[where] = load(*where)
            if datasets[where].digest != run.settings["task"]["data_sha256"]:
                raise RuntimeError(f"the data of {run.task} changed during the sweep")
            channel.send("done", record=train(run, datasets[where], channel.progress))
    except BaseException:
        channel.send("error", traceback=traceback.format_exc())
        sys.exit(1)


if __name__ == "__main__":
    main()
