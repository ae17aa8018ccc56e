"""Spreads runs over worker processes and returns each record as soon as it arrives."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .errors import RunFailed
from .plan import Run

Event = tuple["Worker", dict[str, Any] | None]


class Worker:
    """One child process, its present run and step."""

    def __init__(self, events: queue.Queue[Event]) -> None:
        self.run: Run | None = None
        self.step = 0
        self.last_words: deque[str] = deque(maxlen=40)
        # A new session, so that Ctrl-C in the terminal reaches only the parent, which then ends its workers.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lognet.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self.readers = [
            threading.Thread(target=self._listen, args=(self.process.stdout, events), daemon=True),
            threading.Thread(target=self._overhear, args=(self.process.stderr,), daemon=True),
        ]
        for thread in self.readers:
            thread.start()

    def _listen(self, pipe: IO[str], events: queue.Queue[Event]) -> None:
        for line in pipe:
            events.put((self, json.loads(line)))
        events.put((self, None))

    def _overhear(self, pipe: IO[str]) -> None:
        self.last_words.extend(pipe)

    def start(self, run: Run) -> None:
        self.run, self.step = run, 0
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead worker is reported by its other pipe
            self.process.stdin.write(json.dumps(run.as_json(), allow_nan=False) + "\n")
            self.process.stdin.flush()

    def failure(self, event: dict[str, Any] | None) -> RunFailed:
        """What to tell the user when this worker failed."""
        what = "a worker" if self.run is None else f"the run {describe(self.run)}"
        if event is not None:
            return RunFailed(f"{what} failed:\n{event['traceback'].rstrip()}")
        self.readers[1].join(timeout=2)
        code = self.process.wait()
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return RunFailed(f"{what} failed: its process {ended}\n{''.join(self.last_words).rstrip()}".rstrip())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self.readers:
            thread.join(timeout=2)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _environment() -> dict[str, str]:
    """The environment of a worker: one thread for every numeric library, and the parent's lognet."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, **one_thread, "PYTHONPATH": path}


def describe(run: Run) -> str:
    return f"{run.task}, {run.contender.label}, seed {run.seed}"


def execute(runs: Sequence[Run], jobs: int, keep: Callable[[Run, dict[str, Any]], None], show: bool = True) -> None:
    """Train `runs` in up to `jobs` processes, calling `keep` with each record as it arrives.

    Raises:
        RunFailed: a worker failed. The runs that were kept remain kept.
    """
    waiting = deque(runs)
    events: queue.Queue[Event] = queue.Queue()
    workers: list[Worker] = []
    left = len(runs)
    bar = tqdm(
        total=sum(run.steps for run in runs),
        unit="step",
        desc=f"0/{left} runs",
        dynamic_ncols=True,
        disable=not show,
        smoothing=0.05,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )
    try:
        for _ in range(min(jobs, left)):
            worker = Worker(events)
            workers.append(worker)
            worker.start(waiting.popleft())
        while left:
            try:
                worker, event = events.get(timeout=1)  # on Windows an endless wait cannot be interrupted
            except queue.Empty:
                bar.refresh()
                continue
            if event is None or event["event"] == "error" or worker.run is None:
                raise worker.failure(event)
            if event["event"] == "progress":
                bar.update(event["step"] - worker.step)
                worker.step = event["step"]
                bar.set_postfix_str(f"{describe(worker.run)}, loss {event['loss']:.3f}", refresh=False)
                continue
            keep(worker.run, event["record"])
            bar.update(worker.run.steps - worker.step)
            left -= 1
            bar.set_description(f"{len(runs) - left}/{len(runs)} runs")
            worker.run = None
            if waiting:
                worker.start(waiting.popleft())
    finally:
        bar.close()
        for worker in workers:
            worker.stop()
