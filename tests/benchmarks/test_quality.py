"""The quality suite: its distance, its cache, its statistics, and a few steps of everything it trains."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.quality import cli, parts, report
from benchmarks.quality.data import load
from benchmarks.quality.gan import frechet_distance, moments
from benchmarks.quality.parts import FULL, PARTS, Planner, Size, covered, grid_rate, rows, wanted
from benchmarks.quality.settings import adam, madam, paper
from benchmarks.quality.statistics import Sample, difference
from benchmarks.quality.store import Store
from benchmarks.quality.tasks import ACCURACY, BITS_PER_CHARACTER, TASKS, UNEXPLAINED, unexplained
from benchmarks.quality.training import build, make_optimizer, measure, share, train
from lognet import LogTensor
from lognet.optim import Madam

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--quick", "--steps", "2", "--tasks", "mnist1d-mlp", "--quiet"]
TRAINED = ["baselines", "bits", "lr", "signs"]
HELD_OUT = [name for name, task in TASKS.items() if task.held_out]
OTHERS = [name for name in TASKS if name not in HELD_OUT]


def without_times(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "cpu_seconds")}


def records(folder):
    return {p.name: without_times(json.loads(p.read_text())) for p in (folder / "runs").iterdir()}


def run_of(contender, task="mnist1d-mlp", steps=2, seed=0):
    return contender.run(task, load(TASKS[task].data).digest, steps, seed)


# The distance.


def test_frechet_distance_of_diagonal_covariances():
    a, b = torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64), torch.tensor([9.0, 4.0, 2.0], dtype=torch.float64)
    mean = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    expected = 25 + float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance((mean, a.diag()), (torch.zeros_like(mean), b.diag())) == pytest.approx(expected)


def test_frechet_distance_of_covariances_that_do_not_commute():
    """In two dimensions the trace of the root of a product is sqrt(tr(AB) + 2 sqrt(det(AB)))."""
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, -0.4], [-0.4, 3.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    root = math.sqrt((a @ b).trace() + 2 * math.sqrt(torch.det(a) * torch.det(b)))
    assert frechet_distance((zero, a), (zero, b)) == pytest.approx(float((a + b).trace()) - 2 * root)
    assert frechet_distance((zero, a), (zero, b)) == pytest.approx(frechet_distance((zero, b), (zero, a)))
    assert frechet_distance((zero, a), (zero, a)) == pytest.approx(0, abs=1e-12)


def test_moments():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])
    mean, covariance = moments(points)
    assert mean.tolist() == [1, 2]
    assert covariance.tolist() == [[4 / 3, 0], [0, 16 / 3]]


# One run.


def test_settings_are_complete_and_name_the_run():
    run = run_of(madam(8))
    optimizer = run.settings["optimizer"]
    net = build(run)
    made = make_optimizer(net, optimizer, 0)
    assert made.defaults == Madam(net.parameters()).defaults
    assert run == run_of(madam(8, {"p_scale": run.settings["wrap"]["p_scale"]}, lr=optimizer["lr"]))
    others = [
        run_of(madam(10)),
        run_of(madam(None)),
        run_of(madam(8, lr=0.1)),
        run_of(madam(8, {"p_scale": 3.0})),
        run_of(madam(8), steps=3),
        run_of(madam(8), seed=1),
        run_of(madam(8), task="mnist1d-conv"),
        run_of(paper(8)),
        run_of(adam(0.1)),
        madam(8).run("mnist1d-mlp", "other data", 2, 0),
    ]
    assert len({r.key for r in (run, *others)}) == 1 + len(others)


def test_the_papers_settings():
    run = run_of(paper(10))
    assert make_optimizer(build(run), run.settings["optimizer"], 0).defaults == Madam.paper([torch.ones(1)]).defaults
    assert run.settings["wrap"] == {
        "bits": 10, "base_precision": 0.005, "p_scale": 3.0, "init": "uniform", "sign_seed": None,
    }  # fmt: skip


def test_data_of_another_digest_are_refused():
    with pytest.raises(RuntimeError, match="the data of mnist1d-mlp"):
        train(madam(8).run("mnist1d-mlp", "other data", 2, 0))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains(name):
    run = run_of(madam(8), name)
    record = train(run)
    assert record["status"] == "ok"
    assert math.isfinite(record["metric"])
    assert math.isfinite(record["loss"])
    assert record["warnings"] == []
    assert 9 / 8 <= record["weight_bytes"] / record["parameters"] < 1.5
    assert record["settings"] == run.settings
    json.dumps(record, allow_nan=False)


def test_a_run_repeats_exactly_and_diverging_is_a_result():
    run = run_of(madam(8))
    first = without_times(train(run))
    torch.rand(3)
    assert without_times(train(run)) == first
    record = train(run_of(adam(1e30), steps=5))
    assert (record["status"], record["metric"], record["loss"]) == ("diverged", None, None)


def test_both_nets_of_the_gan_move_and_neither_by_the_others_gradient():
    task, run = TASKS["digits-gan"], run_of(adam(0.01), "digits-gan")
    net = build(run)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = make_optimizer(net, run.settings["optimizer"], 0)
    x, y = next(task.batches(load("digits"), 8, torch.Generator()))
    task.update(net, optimizer, x, y, torch.Generator())
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert {int(optimizer.state[p]["step"]) for p in net.parameters()} == {1}


@pytest.mark.parametrize("name", ["autoencoder", "friedman"])
def test_the_unexplained_share_of_the_variance(name):
    """All of it for the means of the held-out targets, none for the targets, a quarter halfway between them."""
    data = load(TASKS[name].data)
    means = data.test_y.mean(0)
    for halfway, share_left in ((0, 100), (0.5, 25), (1, 0)):
        answers = iter((means + halfway * (data.test_y - means)).split(500))
        left = unexplained(lambda x, answers=answers: next(answers), data, torch.Generator())
        assert left == pytest.approx(share_left, abs=1e-4)
    assert math.isnan(unexplained(lambda x: x.new_full((len(x), data.classes), math.nan), data, torch.Generator()))


def test_regression_is_scored_by_the_loss_that_it_descends():
    task, run = TASKS["friedman"], run_of(adam(0.01), "friedman")
    net, data = build(run), load("friedman")
    every = task.update(
        net, make_optimizer(net, run.settings["optimizer"], 0), data.test_x, data.test_y, torch.Generator()
    )
    variance = float((data.test_y - data.test_y.mean(0)).square().mean())
    assert measure(run, build(run)) == pytest.approx(100 * every / variance, rel=1e-5)
    assert UNEXPLAINED.worse(2.0, 1.0) > 0


def test_evaluation_leaves_batch_norms_alone():
    run = run_of(adam(0.01), "resnet")
    net = build(run)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.fill_(3.0)  # what was seen in training, far from what the held-out digits have
    before = {name: t.clone() for name, t in net.state_dict().items()}
    measure(run, net)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    first, second = load("digits").test_x[:2].split(1)
    assert torch.allclose(net(torch.cat([first, second]))[:1], net(first), atol=1e-6)


@pytest.mark.parametrize("name", ["deep-mlp", "deep-mlp-raw", "deep-norm-mlp", "deep-norm-mlp-raw"])
def test_the_deep_networks_are_ten_layers_deep(name):
    net = build(run_of(adam(0.01), name))
    assert sum(isinstance(m, torch.nn.Linear) for m in net.modules()) == 10
    assert any(isinstance(m, torch.nn.LayerNorm) for m in net.modules()) == ("norm" in name)


def test_patches_are_two_by_two_squares():
    net = build(run_of(adam(0.01), "vit"))
    seen = []
    net.patch.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.arange(64.0).view(1, 1, 8, 8))
    assert seen[0].shape == (1, 16, 4)
    assert seen[0][0, 5].tolist() == [18, 19, 26, 27]  # second row and column of patches


def test_raw_digits_are_the_digits_from_zero_to_one():
    raw, digits = load("digits-raw"), load("digits")
    assert (float(raw.train_x.min()), float(raw.train_x.max())) == (0, 1)
    assert torch.allclose((16 * raw.test_x).round(), 16 * raw.test_x, atol=1e-4)  # grey levels 0 to 16, as shipped
    assert torch.equal(raw.test_y, digits.test_y)
    assert raw.digest != digits.digest


def test_friedmans_points():
    data = load("friedman")
    assert (data.train_x.shape, data.test_x.shape, data.test_y.shape) == ((2000, 10), (1000, 10), (1000, 1))
    for t in (data.train_x, data.train_y):
        assert t.mean(0).abs().max() < 1e-5
        assert (t.std(0) - 1).abs().max() < 1e-5
    assert not (data.train_x[:, None] == data.test_x).all(2).any()


def test_schedules():
    cosine = [
        share({"kind": "warm-up then cosine", "warmup_share": 0.05, "final_share": 0.02}, s, 100) for s in range(101)
    ]
    assert cosine[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert cosine[5:] == sorted(cosine[5:], reverse=True)
    assert cosine[100] == pytest.approx(0.02)
    assert [share({"kind": "linear decay"}, s, 4) for s in range(4)] == [1, 0.75, 0.5, 0.25]


# What is planned.


def fill(store, run, metric, loss=1.0):
    record = {
        "settings": run.settings, "metric": metric, "loss": loss, "status": "ok", "warnings": [], "cpu_seconds": 1.0,
        "parameters": 8, "weight_bytes": 9, "training_bytes": 41, "machine": "a machine",
        "versions": {"torch": "2", "python": "3"}, "float": metric, "before": metric,
    }  # fmt: skip
    store.keep(run, record)


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


# Statistics.


def test_differences_and_verdicts():
    few, many = Sample((1.0, 2.0, 3.0)), Sample((2.0, 3.0, 7.0))
    d = difference(few, many)
    assert (d.value, d.noise) == (-2, pytest.approx(2 * math.sqrt(1 / 3 + 7 / 3)))
    assert d.verdict(ACCURACY) == "within noise"
    clear = difference(Sample((1.0, 1.0)), Sample((2.0, 2.0)))
    assert (clear.verdict(ACCURACY), clear.verdict(BITS_PER_CHARACTER)) == ("worse", "better")
    assert difference(Sample((1.0,)), many).verdict(ACCURACY) == "one seed"
    assert difference(Sample((1.0,), diverged=1), many) is None
    assert difference(Sample(()), many) is None


# The folder.


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


def test_a_wrapped_run_holds_log_tensors_only():
    run = run_of(madam(8), "text-lstm")
    net = build(run)
    assert not any(isinstance(p, LogTensor) for p in net.parameters())
    assert train(run)["weight_bytes"] < 1.5 * sum(p.numel() for p in net.parameters())
