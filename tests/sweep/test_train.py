"""One run: the same start and the same data for every contender, the same result every time."""

import math
from itertools import pairwise

import pytest
import torch

import lognet
from lognet.sweep import schema
from lognet.sweep.plan import TASKS, Contender, Run, contenders, fingerprint, load, plan
from lognet.sweep.summary import Row, TaskSummary, difference, summarise
from lognet.sweep.tables import text
from lognet.sweep.train import batches, build, histogram, ladder, make_optimizer, schedule, train

from .test_data import write_cifar


def silent(step, loss):
    pass


@pytest.fixture(scope="module")
def digits():
    return load("digits", None)


def run_of(data, precision="8", seed=0, steps=3, task="digits"):
    who = contenders([precision])[-1]
    return plan([task], [who], [seed], {task: data}, {}, steps)[0]


def test_contenders():
    assert [c.key for c in contenders(["8", "fp32", "12", "8"])] == ["adam-fp32", "madam-fp32", "madam-12", "madam-8"]
    assert Contender("madam", 8).label == "8-bit Madam"


def test_every_contender_meets_the_same_start_and_the_same_data(digits):
    first = [run_of(digits, p) for p in ("fp32", "12", "8")]
    starts = [torch.cat([p.flatten() for p in build(r, digits).parameters()]) for r in first]
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])
    device = torch.device("cpu")
    for step, seen in zip(range(30), zip(*(batches(r, digits, device) for r in first), strict=False), strict=False):
        assert all(torch.equal(x, seen[0][0]) and torch.equal(y, seen[0][1]) for x, y in seen), step
    other = run_of(digits, seed=1)
    assert not torch.equal(next(batches(first[0], digits, device))[1], next(batches(other, digits, device))[1])
    assert not torch.equal(torch.cat([p.flatten() for p in build(other, digits).parameters()]), starts[0])


@pytest.mark.parametrize("precision", ["fp32", "8"])
def test_a_run_repeats_exactly(digits, precision):
    def once():
        record = train(run_of(digits, precision), digits, silent)
        return {k: v for k, v in record.items() if k not in ("seconds", "cpu_seconds")}

    first = once()
    torch.rand(7)  # whatever happened before in the process does not matter
    assert once() == first


def test_progress_and_curve(digits):
    heard = []
    record = train(run_of(digits, "fp32", steps=7), digits, lambda step, loss: heard.append((step, loss)))
    assert [step for step, _ in heard] == list(range(1, 8))
    assert record["curve"] == {"step": list(range(1, 8)), "loss": [loss for _, loss in heard]}


def test_ladder_facts(digits):
    run = run_of(digits, "8")
    model = build(run, digits)
    assert histogram(model) is None
    assert ladder(model) is None
    make_optimizer(run, model)
    count = sum(p.numel() for p in model.parameters())
    assert all(isinstance(p, lognet.LogTensor) for p in model.parameters())
    bins = histogram(model)
    assert len(bins) == 64
    assert sum(bins) == count
    codes = torch.cat([p.exponent.flatten() for p in model.parameters()])
    assert bins[0] == int((codes < 4).sum())  # 256 rungs in 64 bins
    facts = ladder(model)
    assert facts["rungs"] == 256
    assert facts["range_nats"] == pytest.approx([255 * facts["base_precision"][0]])
    assert facts["share_at_bottom"] == pytest.approx(int((codes == 255).sum()) / count)


def test_few_bits_have_a_bin_a_rung(digits):
    run = run_of(digits, "3")
    model = build(run, digits)
    make_optimizer(run, model)
    assert len(histogram(model)) == 8


def test_bytes(digits):
    adam = train(Run("digits", Contender("adam", None), 0, _adam(digits)), digits, silent)
    madam = train(run_of(digits, "8"), digits, silent)
    count = adam["bytes"]["parameters"]
    assert madam["bytes"]["parameters"] == count
    assert adam["bytes"]["weights"] >= 4 * count
    assert adam["bytes"]["training"] - adam["bytes"]["weights"] == pytest.approx(8 * count, rel=0.01)
    assert 9 / 8 * count <= madam["bytes"]["weights"] <= 1.2 * count


def _adam(data, **changes):
    settings = plan(["digits"], [Contender("adam", None)], [0], {"digits": data}, {}, 5)[0].settings
    settings["optimizer"] |= changes
    return settings


def test_a_run_that_diverges_is_a_result(digits):
    run = Run("digits", Contender("adam", None), 0, _adam(digits, lr=1e30))
    record = train(run, digits, silent)
    assert record["status"] == "diverged"
    assert record["metric"] is None
    assert record["steps_done"] < 5
    whole = {
        "task": "digits", "contender": "adam-fp32", "optimizer": "adam", "bits": None, "seed": 0,
        "fingerprint": run.fingerprint, "settings": run.settings, "versions": {}, **record,
    }  # fmt: skip
    summary = summarise([whole])
    assert "1 (1 diverged)" in text(summary)


def test_schedule_rises_then_falls():
    settings = {"warmup_share": 0.1, "final_share": 0.02}
    rates = [schedule(settings, s, 100) for s in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.02)
    assert schedule(settings, 0, 1) == 1


def test_the_cifar10_row_trains(tmp_path):
    """ResNet-18 as it is, on a few pictures in the true file format: two steps of it."""
    folder = write_cifar(tmp_path / "cifar-10-batches-py", per_file=2)
    data = load("cifar10", str(folder))
    run = run_of(data, "12", steps=2, task="cifar10")
    run.settings["task"]["batch"] = 4
    record = train(run, data, silent)
    assert record["status"] == "ok"
    assert 0 <= record["metric"] <= 100
    assert record["bytes"]["parameters"] == 11_173_962  # ResNet-18 with ten classes and a 3 x 3 stem


def test_fingerprints(digits):
    a, b = run_of(digits, "8"), run_of(digits, "8", seed=3)
    assert a.fingerprint == b.fingerprint  # the seed is part of a run's name, not of its settings
    assert a.fingerprint != run_of(digits, "7").fingerprint
    assert a.fingerprint != run_of(digits, "8", steps=4).fingerprint
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert Run.from_json(a.as_json()) == a


def row(key, values):
    optimizer, bits = key.split("-")
    contender = Contender(optimizer, None if bits == "fp32" else int(bits))
    settings = {"task": {"steps": 1}, "optimizer": {"lr": 0.1}}
    sizes = {"parameters": 10, "weights": 40, "training": 120}
    return Row(
        contender, tuple({"metric": v, "settings": settings, "bytes": sizes, "seed": i} for i, v in enumerate(values))
    )


def test_difference_and_its_noise():
    few, many = row("madam-8", [1.0, 2.0, 3.0]), row("madam-fp32", [2.0, 3.0, 7.0])
    d = difference(few, many)
    assert d.value == -2
    assert d.noise == pytest.approx(2 * math.sqrt(1 / 3 + 7 / 3))  # variances 1 and 7, three seeds each
    assert d.within_noise
    assert difference(few, few) is None
    assert difference(few, None) is None
    assert difference(row("madam-8", [1.0]), many).noise is None
    assert difference(row("madam-8", [None, None]), many) is None
    summary = TaskSummary(TASKS["text"], (few, many))
    assert summary.number(-0.0001, signed=True) == "+0.000"


def test_the_curve_fits_the_schema(digits):
    run = run_of(digits, "fp32", steps=201)
    run.settings["task"]["batch"] = 2
    curve = train(run, digits, silent)["curve"]
    assert curve["step"] == [*range(2, 201, 2), 201]
    assert len(curve["loss"]) == 101 <= schema.CURVE_POINTS
