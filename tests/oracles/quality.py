"""Runs of the quality suite, records that are made up, and what of a record must not depend on when a run ran."""

from benchmarks.quality.data import load
from benchmarks.quality.tasks import TASKS


def run_of(contender, task="mnist1d-mlp", steps=2, seed=0):
    return contender.run(task, load(TASKS[task].data).digest, steps, seed)


def fill(store, run, metric, loss=1.0):
    record = {
        "settings": run.settings, "metric": metric, "loss": loss, "status": "ok", "warnings": [], "cpu_seconds": 1.0,
        "parameters": 8, "weight_bytes": 9, "training_bytes": 41, "machine": "a machine",
        "versions": {"torch": "2", "python": "3"}, "float": metric, "before": metric,
    }  # fmt: skip
    store.keep(run, record)


def without_times(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "cpu_seconds")}
