"""What is planned: grids of learning rates, the parts and their tasks, and the records that count."""

import json
import os

import pytest
from oracles.quality import fill, run_of

from benchmarks.quality.parts import FULL, PARTS, Planner, Size, covered, grid_rate, rows, wanted
from benchmarks.quality.settings import adam, madam
from benchmarks.quality.store import Store
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.training import train

HELD_OUT = [name for name, task in TASKS.items() if task.held_out]
OTHERS = [name for name in TASKS if name not in HELD_OUT]


def test_a_best_rate_at_an_end_extends_the_grid(tmp_path):
    planner = Planner(FULL, Store(tmp_path))
    task = TASKS["mnist1d-mlp"]
    rates, best = planner.grid("Adam", task)
    assert list(rates) == [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]
    assert best is None
    for rate, run in rates.items():
        fill(planner.store, run, None if rate > 0.01 else 50 - rate)
    rates, best = planner.grid("Adam", task)
    assert (min(rates), best) == (0.0001, None)
    fill(planner.store, rates[0.0001], 40.0)
    assert planner.grid("Adam", task)[1] is None  # its neighbours are missing, now


def test_the_rates_beside_the_best_are_tried(tmp_path):
    planner = Planner(FULL, Store(tmp_path))
    task = TASKS["mnist1d-mlp"]
    for rate, run in planner.grid("SGD", task)[0].items():
        fill(planner.store, run, 60 - abs(rate - 0.1))
    rates, best = planner.grid("SGD", task)
    assert (set(rates), best) == ({0.001, 0.003, 0.01, 0.03, 0.055, 0.1, 0.18, 0.3, 1.0}, None)
    fill(planner.store, rates[0.055], 60, loss=0.5)
    fill(planner.store, rates[0.18], 60)
    assert planner.grid("SGD", task)[1] == 0.055  # the lower training loss breaks a tie
    assert [r.settings["seed"] for r in planner.tuned("SGD", task)] == [0, 1, 2]
    assert len(planner.grid("SGD", task)[0]) == len(rates)
    [lr] = {r.settings["optimizer"]["lr"] for r in planner.tuned("SGD", task)}
    assert lr == 0.055


def test_half_decades():
    assert [grid_rate(k) for k in range(-14, 4, 2)] == [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]


def test_defaults_are_one_run_in_all_parts(tmp_path):
    planner = Planner(FULL, Store(tmp_path))
    task = TASKS["digits"]
    default = planner.runs(madam(8), task)
    for part, label in (("lr", "Madam, 8 bits, lr"), ("ablation", "defaults"), ("state", "state_bits 32")):
        assert default[0] in [row.runs[0] for row in PARTS[part](planner, task) if row.label.startswith(label)]
    assert next(PARTS["signs"](planner, task)).runs == default


def test_seeded_signs_follow_the_run(tmp_path):
    row = list(PARTS["signs"](Planner(FULL, Store(tmp_path)), TASKS["digits"]))[-1]
    assert [r.settings["wrap"]["sign_seed"] for r in row.runs] == [0, 1, 2]


def test_held_out_tasks_have_the_defaults_baselines_widths_and_warm_ups_alone(tmp_path):
    planner = Planner(FULL, Store(tmp_path))
    for part in PARTS:
        named = {row.task for row in rows(planner, part, list(TASKS))}
        held_out, others = part in ("baselines", "bits", "warm-up"), part != "warm-up"
        if part != "fine-tuning":  # of two tasks
            assert named == {*(HELD_OUT if held_out else ()), *(OTHERS if others else ())}
        assert {run.task for run in wanted(planner, [part], list(TASKS))} <= set(covered(part, list(TASKS)))
        assert covered(part, HELD_OUT) == (HELD_OUT if held_out else [])
    changed = {
        name
        for run in wanted(planner, ["bits"], HELD_OUT)
        if run.settings["wrap"] is not None
        for name, value in run.settings["optimizer"].items()
        if value != madam(8).optimizer[name]
    }
    assert changed == set()


def test_the_warm_ups_beside_the_default(tmp_path):
    planner = Planner(FULL, Store(tmp_path))
    short, default, long = PARTS["warm-up"](planner, TASKS["deep-mlp"])
    assert [r.runs[0].settings["optimizer"]["warmup"] for r in (short, default, long)] == [50, 100, 200]
    assert default.runs[:3] == planner.runs(madam(8), TASKS["deep-mlp"])
    assert (default.reference, short.reference, long.reference) == ((), default.runs, default.runs)
    assert [r.settings["seed"] for r in short.runs] == list(range(6))


def test_fine_tuning_starts_from_the_float_network(tmp_path):
    tiny = Planner(Size(seeds=(0,), steps=4, extensions=0, refined=False), Store(tmp_path))
    for run in tiny.grid("Adam", TASKS["digits"])[0].values():
        fill(tiny.store, run, 50.0)
    row = list(PARTS["fine-tuning"](tiny, TASKS["digits"]))[-1]
    [run] = row.runs
    assert (run.settings["steps"], run.settings["start"]["steps"], run.steps) == (1, 4, 5)
    record = train(run)
    plain = train(run_of(adam(run.settings["start"]["optimizer"]["lr"]), "digits", steps=4))
    assert record["float"] == plain["metric"]
    assert record["before"] is not None
    assert record["warnings"] == []


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    run, store = run_of(madam(8)), Store(tmp_path / "deep")
    store.keep(run, {"metric": 1.0})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        store.keep(run, {"metric": 2.0})
    assert json.loads(store.path(run).read_text()) == {"metric": 1.0}
    assert list(store.path(run).parent.iterdir()) == [store.path(run)]


def test_a_damaged_or_foreign_record_counts_as_missing(tmp_path):
    run = run_of(madam(8))
    fill(Store(tmp_path), run, 1.0)
    assert Store(tmp_path).get(run)["metric"] == 1.0
    path = Store(tmp_path).path(run)
    for text in ("{", "[]", "", json.dumps({"settings": run_of(madam(10)).settings})):
        path.write_text(text)
        assert Store(tmp_path).get(run) is None
