"""Real processes and real files: what a user of the command line would see."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--tasks", "digits", "--precisions", "fp32", "8", "--seeds", "0", "1"]
STEPS = 24


def environment():
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(*words, module="lognet.sweep"):
    """The command line as a process of its own."""
    command = [sys.executable, "-m", module, *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(), start_new_session=True)


def sweep(*words, module="lognet.sweep"):
    """Run the command line to its end: (exit code, stdout, stderr)."""
    with start(*words, module=module) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def table_of(out):
    """The printed table, without the line that names the report."""
    return out[: out.rindex("report:")]


def document(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def without_times(doc):
    """What must not depend on when, and in how many pieces, a sweep ran."""
    return [{k: v for k, v in run.items() if k not in ("seconds", "cpu_seconds")} for run in doc["runs"]]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def kept_runs(folder):
    path = Path(folder) / "results.json"
    return len(document(folder)["runs"]) if path.exists() else 0


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One small sweep, run once: (folder, stdout, stderr)."""
    out = tmp_path_factory.mktemp("finished") / "sweep"
    code, stdout, stderr = sweep(*TINY, "--steps", STEPS, "--jobs", 1, "--out", out)
    assert code == 0, stderr
    return out, stdout, stderr
