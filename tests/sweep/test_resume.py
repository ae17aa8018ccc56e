"""Whatever ends a sweep, finished runs are kept and the same command ends with the same table."""

import os
import signal
import sys
from pathlib import Path

import pytest

from lognet.sweep.cli import main

from .conftest import STEPS, TINY, document, kept_runs, start, sweep, table_of, wait_for, without_times

COMMAND = [*TINY, "--steps", STEPS, "--jobs", 2]


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid):
    """Whether a process ended (a zombie has: nobody reaps orphans in some containers)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


@linux
def test_kill_loses_at_most_the_runs_in_progress_and_leaves_no_process(tmp_path, finished, capsys):
    reference, reference_out, _ = finished
    out = tmp_path / "sweep"
    process = start(*COMMAND, "--out", out)
    wait_for(lambda: kept_runs(out) >= 2)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    kept = kept_runs(out)  # whole and valid: document() would fail on half a file
    assert 2 <= kept < 6
    wait_for(lambda: all(gone(pid) for pid in workers), seconds=30)

    assert main([*map(str, COMMAND), "--out", str(out)]) == 0
    stdout, stderr = capsys.readouterr()
    assert f"{kept} runs are kept" in stderr
    assert f"{6 - kept}/{6 - kept} runs" in stderr
    # The reference ran uninterrupted with one job: neither the kill nor the number of jobs shows in the results.
    assert table_of(stdout) == table_of(reference_out)
    assert without_times(document(out)) == without_times(document(reference))


@linux
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path):
    out = tmp_path / "sweep"
    process = start(*COMMAND, "--out", out)
    wait_for(lambda: kept_runs(out) >= 1)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert f"{kept_runs(out)} of 6 runs are kept in {out}. The same command goes on from there." in stderr
    wait_for(lambda: all(gone(pid) for pid in workers), seconds=30)


@linux
def test_a_worker_that_dies_is_an_error_and_finished_runs_stay(tmp_path):
    out = tmp_path / "sweep"
    process = start(*COMMAND, "--out", out)
    wait_for(lambda: kept_runs(out) >= 1)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "failed: its process was killed by signal 9" in stderr
    assert "runs are kept" in stderr
    assert kept_runs(out) >= 1


def test_a_worker_that_raises_hands_over_its_traceback(tmp_path):
    """A text that changes under a running sweep: each worker reads it for itself and notices."""
    text, out = tmp_path / "a.txt", tmp_path / "sweep"
    text.write_text("the first text, " * 100)
    process = start("--tasks", "text", "--text", text, "--precisions", "8", "--steps", 300, "--jobs", 1, "--out", out)
    wait_for(lambda: (out / ".lock").exists())  # the sweep has read the text, its worker not yet
    text.write_text("the other text, " * 100)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "RuntimeError: the data of text changed during the sweep" in stderr
    assert stderr.count("Traceback") == 1  # the worker's, none of the parent's own


def test_a_finished_sweep_prints_its_table_again_at_once(finished):
    out, stdout, _ = finished
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.name != ".lock"}
    code, again, stderr = sweep(*TINY, "--steps", STEPS, "--jobs", 1, "--out", out)
    assert (code, again, stderr) == (0, stdout, "")
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.name != ".lock"} == before


def test_precisions_seeds_and_tasks_extend_a_folder(tmp_path, capsys):
    out = tmp_path / "sweep"
    small = ["--steps", "2", "--quiet", "--jobs", "1", "--out", str(out), "--precisions", "8"]
    assert main(["--tasks", "digits", "--seeds", "0", *small]) == 0
    first = without_times(document(out))
    capsys.readouterr()
    assert main(["--tasks", "text", "digits", "--seeds", "0", "5", *small, "3"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == f"1 run is kept in {out} already; 7 to go\n"
    doc = document(out)
    assert len(doc["runs"]) == 2 * 2 * 2
    assert first[0] in without_times(doc)
    assert len(doc["commands"]) == 2
    assert "3-bit Madam" in stdout
    assert stdout.index("digits:") < stdout.index("text:")
