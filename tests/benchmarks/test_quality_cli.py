"""The command line of the quality suite: what is trained again, the report, and an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oracles.quality import fill, without_times

from benchmarks.quality import cli, parts, report
from benchmarks.quality.parts import PARTS, Planner, wanted
from benchmarks.quality.store import Store

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--quick", "--steps", "2", "--tasks", "mnist1d-mlp", "--quiet"]
TRAINED = ["baselines", "bits", "lr", "signs"]


def records(folder):
    return {p.name: without_times(json.loads(p.read_text())) for p in (folder / "runs").iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Some parts of one task, two steps each."""
    out = tmp_path_factory.mktemp("quality") / "out"
    assert cli.main([*TINY, "--parts", *TRAINED, "--jobs", "0", "--out", str(out)]) == 0
    return out


def test_a_second_call_runs_nothing(finished, monkeypatch, capsys):
    monkeypatch.setattr(cli, "execute", lambda *_: pytest.fail("it trained again"))
    assert cli.main([*TINY, "--parts", *TRAINED, "--out", str(finished)]) == 0
    assert capsys.readouterr().out.startswith("all runs were there already")


def test_a_deleted_result_is_made_again_the_same(finished, capsys):
    before = records(finished)
    for name in list(before)[:2]:
        (finished / "runs" / name).unlink()
    assert cli.main([*TINY, "--parts", *TRAINED, "--jobs", "0", "--out", str(finished)]) == 0
    assert capsys.readouterr().out.startswith("2 runs trained")
    assert records(finished) == before


def test_results_do_not_depend_on_jobs(finished, tmp_path):
    assert cli.main([*TINY, "--parts", "signs", "--jobs", "2", "--out", str(tmp_path)]) == 0
    assert records(tmp_path).items() <= records(finished).items()
    assert len(records(tmp_path)) == 6


def test_the_report_of_finished_runs(finished):
    text = (finished / "quality.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == TRAINED
    assert "| task | metric | SGD | Adam | Madam | Madam, 12 bits | Madam, 8 bits | Madam, 4 bits |" in text
    assert "|  | mnist1d-mlp, accuracy, % |" in text
    for label in ("signs may change", "frozen, drawn from a seed", "Madam, 8 bits, lr 0.05"):
        short = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
        [long] = [line for line in text.splitlines() if line.startswith(f"| mnist1d-mlp | {label} |")]
        assert short.split("|")[2] == long.split("|")[4]
    count = len(records(finished))
    assert f"{count} of {count} runs are in" in text
    assert {"learning_rates.svg", "learning_rates.png"} < {p.name for p in finished.iterdir()}
    header = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert min(header) > 2


def test_the_report_shows_what_diverged_and_what_is_missing(tmp_path):
    planner = Planner(parts.QUICK, Store(tmp_path))
    tasks = ["digits", "text", "linear"]
    every = list(PARTS)
    sections = [part for part in PARTS if part != "warm-up"] + ["warm-up, held-out tasks"]
    for part in ("bits", "baselines"):
        sections.insert(sections.index(part) + 1, f"{part}, held-out tasks")
    assert "0 of" in report.render(planner, every, tasks, "command")
    for i, run in enumerate(wanted(planner, every, tasks)):
        if i % 3:
            fill(planner.store, run, None if i % 3 == 1 else 1.5 + i)
    text = report.render(planner, every, tasks, "command")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == sections
    assert "1 diverged" in text
    assert "missing" in text
    assert "nan" not in text
    cli.write_report(planner, every, tasks, "command")
    assert (tmp_path / "learning_rates.png").exists()


def test_held_out_tasks_are_counted_apart(tmp_path):
    planner = Planner(parts.QUICK, Store(tmp_path))
    tasks = ["digits", "text", "linear"]
    for _ in range(2):  # the grids, then what is tuned by them
        for run in wanted(planner, ["bits"], tasks):
            fill(planner.store, run, 1.5)
    text = report.render(planner, ["bits"], tasks, "command")
    counts = [line.split("|")[2:-1] for line in text.splitlines() if line.startswith("| Madam, 12 bits |")]
    assert [[int(cell) for cell in cells] for cells in counts] == [[0, 2, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_there_is_no_figure_without_rates_to_draw(tmp_path):
    cli.write_report(Planner(parts.QUICK, Store(tmp_path)), ["bits", "lr"], ["linear"], "command")
    assert [p.name for p in tmp_path.iterdir()] == ["quality.md"]


def test_report_only_trains_nothing(tmp_path, capsys):
    assert cli.main([*TINY, "--report-only", "--parts", "signs", "--out", str(tmp_path)]) == 0
    assert "0 of 6 runs are in" in (tmp_path / "quality.md").read_text()
    assert not (tmp_path / "runs").exists()


def test_the_number_of_seeds(tmp_path, capsys):
    command = [*TINY, "--report-only", "--parts", "signs", "--out", str(tmp_path)]
    assert cli.main([*command, "--seeds", "5"]) == 0
    text = (tmp_path / "quality.md").read_text()
    assert "0 of 15 runs are in" in text
    assert "--seeds 5" in text
    for flag in ("--seeds", "--steps"):
        with pytest.raises(SystemExit):
            cli.main([*command, flag, "0"])
        assert "at least 1" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_half_file(tmp_path):
    command = [sys.executable, "-m", "benchmarks.quality", "--tasks", "digits", "--parts", "signs", "--jobs", "1"]
    with subprocess.Popen(
        [*command, "--quiet", "--steps", "10", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        end = time.monotonic() + 100
        while not list(tmp_path.glob("runs/*.json")) and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "stopped; finished runs are kept, the same command goes on from there\n"
    kept = list((tmp_path / "runs").iterdir())
    assert 1 <= len(kept) < 9
    assert all(json.loads(p.read_text())["status"] == "ok" for p in kept)
