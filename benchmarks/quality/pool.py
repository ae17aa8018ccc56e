"""Spreads runs over fresh processes of one thread each, and returns each record as soon as it arrives."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess

import torch
from tqdm import tqdm

from .settings import Run
from .training import Record, train

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def prepare_worker() -> None:
    """Use one thread, so that results do not depend on the number of cores, and exit when the parent exits."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def inherited_by_children() -> Iterator[None]:
    """Processes started inside use one thread and ignore Ctrl-C, which the parent handles."""
    environment = dict(os.environ)
    os.environ.update(ONE_THREAD)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        os.environ.clear()
        os.environ.update(environment)


def execute(runs: Sequence[Run], jobs: int, keep: Callable[[Run, Record], None], quiet: bool = False) -> None:
    """Train `runs` in `jobs` processes, or in this one if that is 0, calling `keep` with each record as it arrives."""
    bar = tqdm(
        total=sum(run.steps for run in runs),
        unit="step",
        desc=f"0/{len(runs)} runs",
        disable=quiet,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )
    with bar, closing(_records(runs, jobs)) as records:
        for done, (run, record) in enumerate(records, 1):
            keep(run, record)
            bar.set_description(f"{done}/{len(runs)} runs", refresh=False)
            bar.update(run.steps)


def _records(runs: Sequence[Run], jobs: int) -> Generator[tuple[Run, Record], None, None]:
    if jobs == 0:
        prepare_worker()
        for run in runs:
            yield run, train(run)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(runs)), context, prepare_worker)
    try:
        with inherited_by_children():
            futures = {pool.submit(train, run): run for run in runs}  # this starts all processes
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except BaseException:  # a failed run, Ctrl-C, or a full disk
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
