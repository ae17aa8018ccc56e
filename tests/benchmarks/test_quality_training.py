"""One run: its settings, its task, its data, and a few steps of every task."""

import json
import math

import pytest
import torch
from oracles.quality import run_of, without_times

from benchmarks.quality.data import load
from benchmarks.quality.settings import adam, madam, paper
from benchmarks.quality.tasks import TASKS, UNEXPLAINED, unexplained
from benchmarks.quality.training import build, make_optimizer, measure, share, train
from lognet import LogTensor
from lognet.optim import Madam


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


def test_a_wrapped_run_holds_log_tensors_only():
    run = run_of(madam(8), "text-lstm")
    net = build(run)
    assert not any(isinstance(p, LogTensor) for p in net.parameters())
    assert train(run)["weight_bytes"] < 1.5 * sum(p.numel() for p in net.parameters())
