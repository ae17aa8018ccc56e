"""Pruning: scores against linear algebra, the schedule, and zeros that stay zero."""

import copy

import pytest
import torch
from oracles import algebra as oracle

import lognet
import lognet.models
from lognet import LogTensor, nn
from lognet.convert.prune import CRITERIA, Pruner, ZhuGupta, paper_exclusions, tuple_scores
from lognet.nn.algebra.masks import get_mask
from lognet.optim import Madam


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_scores_of_matrices(n, dtype):
    m = torch.randn(6, 5, n, n, dtype=torch.float64).to(dtype)
    exact = m.double()
    values = torch.linalg.svdvals(exact)
    eigenvalues = torch.linalg.eigvals(exact).abs()
    expected = {
        "frobenius": values.square().sum(-1).sqrt(),
        "det": values.prod(-1),  # |det| is the product of the singular values, and of the |eigenvalues|
        "min_eigenvalue": eigenvalues.min(-1).values,
        "max_eigenvalue": eigenvalues.max(-1).values,
        "component": exact.abs().flatten(-2),
    }
    for criterion in CRITERIA:
        scores = tuple_scores(m.flatten(-2), f"M{n}R", criterion)
        tolerance = 1e-9 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(scores.double(), expected[criterion], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", oracle.ALGEBRAS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_of_every_algebra(name, criterion):
    w = torch.randn(3, 2, oracle.SIZES[name], dtype=torch.float64)
    scores = tuple_scores(w, name, criterion)
    assert scores.shape == (w.shape if criterion == "component" else w.shape[:-1])
    if name in ("C", "H") and criterion.endswith("eigenvalue"):  # all eigenvalues have the tuple's norm
        torch.testing.assert_close(scores, w.norm(dim=-1))
    log = LogTensor.from_float(w)
    assert torch.equal(tuple_scores(log, name, criterion), tuple_scores(log.dequantize(), name, criterion))


def test_schedule():
    schedule = ZhuGupta(0.9, steps=10_000)
    assert schedule(0) == schedule(1999) == 0
    assert schedule(2000) == 0
    assert schedule(8000) == schedule(9999) == 0.9
    assert schedule(5000) == pytest.approx(0.9 * (1 - 0.5**3))
    values = [schedule(t) for t in range(2000, 8001)]
    assert values == sorted(values)
    due = [t for t in range(10_000) if schedule.due(t)]
    assert due == list(range(2000, 8001, 100))
    odd = ZhuGupta(0.5, steps=10, start=0.1, end=0.9, every=5, initial=0.2)
    assert [t for t in range(10) if odd.due(t)] == [1, 6, 9]
    assert odd(0) == 0  # nothing is pruned before t_0, whatever the first pruning goes to
    assert odd(1) == pytest.approx(0.2)
    assert ZhuGupta(0.5, steps=10, start=0.0, initial=0.2)(0) == pytest.approx(0.2)


def model_of(bits):
    return torch.nn.Sequential(
        nn.AlgebraConv2d(4, 16, 3, algebra="H", bits=bits),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        nn.AlgebraLinear(64, 32, algebra="M2R", bits=bits),
        torch.nn.ReLU(),
        nn.AlgebraLinear(32, 8, algebra="M2R", bits=bits),
    )


@pytest.mark.parametrize(
    ("optimizer", "bits"),
    [("Madam", None), ("Madam", 8), ("Madam with momentum", None), ("Madam with momentum", 8), ("Adam", None)],
)
@pytest.mark.parametrize("criterion", ["frobenius", "component"])
def test_pruned_weights_stay_zero_in_training(criterion, bits, optimizer):
    model = model_of(bits)
    options = {"lr": 0.05, "momentum": 0.9} if "momentum" in optimizer else {"lr": 0.05}
    stepper = (
        torch.optim.Adam(model.parameters(), 0.05) if optimizer == "Adam" else Madam(model.parameters(), **options)
    )
    pruner = Pruner(model, ZhuGupta(0.75, steps=20, every=2), criterion, exclude=["5"])
    x = torch.randn(8, 4, 4, 4)
    dead = {}
    for step in range(20):
        stepper.zero_grad()
        model(x).square().mean().backward()
        stepper.step()
        pruner.step()
        for i in (0, 3):
            w = model[i].weight.detach()
            zero = (w.dequantize() if bits else w) == 0
            assert zero[dead.get(i, torch.zeros_like(zero))].all(), f"a pruned weight came back in step {step}"
            if criterion == "frobenius":
                assert (zero.any(-1) == zero.all(-1)).all()
            dead[i] = zero
    assert pruner.sparsity() == pytest.approx({"0.weight": 0.75, "3.weight": 0.75}, abs=0.01)
    last = model[5].weight
    assert ((last.dequantize() if bits else last) != 0).all()
    x.requires_grad_()
    model(x)  # and the forward pass computes with these zeros
    twin = lognet.unwrap(copy.deepcopy(model)) if bits else copy.deepcopy(model)
    torch.testing.assert_close(model(x), twin(x))


def test_a_foreign_optimizer_leaves_the_masked_weights_of_a_log_tensor_at_zero():
    layer = nn.AlgebraLinear(16, 16, algebra="H", bits=8)
    Pruner(layer, ZhuGupta(0.5, steps=10)).prune(0.5)
    stepper = torch.optim.SGD(layer.parameters(), 0.01)
    layer(torch.randn(4, 16)).sum().backward()
    stepper.step()
    assert float((layer.weight.dequantize() == 0).float().mean()) == 0.5


def test_the_mask_takes_one_bit_a_tuple():
    layer = nn.AlgebraLinear(64, 64, bias=False, algebra="M4R", bits=8)
    before = layer.weight.nbytes
    Pruner(layer, ZhuGupta(0.5, steps=10)).prune(0.5)
    assert layer.weight.nbytes - before == 16 // 8  # 4 x 4 tuples
    assert int((layer.weight.dequantize() == 0).sum()) == 8 * 16


@pytest.mark.parametrize("bits", [None, 8])
def test_smallest_go_first_and_state_resumes(bits):
    layer = nn.AlgebraLinear(16, 16, algebra="M2R", bits=bits)
    scores = tuple_scores(layer.weight, "M2R")
    pruner = Pruner(layer, ZhuGupta(0.5, steps=10))
    pruner.prune(0.25)
    gone = tuple_scores(layer.weight, "M2R") == 0
    assert int(gone.sum()) == 4
    assert scores[gone].max() < scores[~gone].min()
    pruner.prune(0.1)  # nothing comes back
    assert int((tuple_scores(layer.weight, "M2R") == 0).sum()) == 4
    again = copy.deepcopy(layer)
    resumed = Pruner(again, ZhuGupta(0.5, steps=10))
    resumed.load_state_dict(pruner.state_dict())
    resumed.prune(0.5)
    pruner.prune(0.5)
    torch.testing.assert_close(again(torch.ones(1, 16)), layer(torch.ones(1, 16)))


def zeros_of(model):
    """Where each prunable weight is exactly zero."""
    return {
        n: p.detach().clone().dequantize() == 0 for n, p in model.named_parameters() if "weight" in n and p.dim() > 2
    }


def train(model, pruner, steps=3, make=lambda p: Madam(p, lr=0.05, warmup=0)):
    stepper = make(model.parameters())
    for _ in range(steps):
        stepper.zero_grad()
        model(torch.randn(8, 4, 4, 4)).square().mean().backward()
        stepper.step()
        pruner.step()


def same(before, after):
    return before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


FOREIGN = lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)


@pytest.mark.filterwarnings("ignore:.*saturate there")  # SGD on a ladder
@pytest.mark.parametrize("make", [lambda p: Madam(p, lr=0.05, warmup=0), FOREIGN], ids=["Madam", "SGD"])
@pytest.mark.parametrize("start", [None, 8], ids=["float", "log"])
@pytest.mark.parametrize("criterion", ["frobenius", "component"])
def test_the_pruned_set_survives_wrap_and_unwrap(criterion, start, make):
    model = model_of(start)
    pruner = Pruner(model, ZhuGupta(0.5, steps=10**6), criterion, exclude=["5"])
    pruner.prune(0.5)
    pruned = zeros_of(model)
    assert float(pruned["0.weight"].float().mean()) == 0.5
    assert not pruned["5.weight"].any()
    for turn in range(4):
        (lognet.unwrap if (turn + bool(start)) % 2 else lognet.wrap)(model)
        assert same(pruned, zeros_of(model)), f"turn {turn}"
        train(model, pruner, make=make)
        assert same(pruned, zeros_of(model)), f"after training in turn {turn}"
    keep = get_mask(model[3], "weight")
    assert keep.shape == ((8, 16, 1) if criterion == "frobenius" else (8, 16, 4))
    pruner.prune(0.75)
    more = zeros_of(model)
    assert all((more[n] | ~pruned[n]).all() for n in pruned)
    assert float(more["3.weight"].float().mean()) == 0.75


def test_wrapping_keeps_one_bit_a_tuple_and_requantizing_too():
    layer = nn.AlgebraLinear(64, 64, bias=False, algebra="M4R")
    Pruner(layer, ZhuGupta(0.5, steps=10)).prune(0.5)
    pruned = layer.weight == 0
    plain = lognet.wrap(nn.AlgebraLinear(64, 64, bias=False, algebra="M4R"), bits=8).weight.nbytes
    assert lognet.wrap(layer, bits=12).weight.nbytes > plain
    assert lognet.requantize(layer, bits=8).weight.nbytes == plain + 16 // 8
    assert torch.equal(layer.weight.dequantize() == 0, pruned)


def test_zeros_that_nobody_pruned_are_not_masked():
    layer = nn.AlgebraLinear(16, 16, algebra="H")
    torch.nn.init.zeros_(layer.weight)
    assert lognet.wrap(layer).weight.mask is None


@pytest.mark.parametrize("bits", [None, 8])
def test_a_copy_and_a_second_pruner_go_on_from_the_pruned_set(bits):
    model = model_of(bits)
    Pruner(model, ZhuGupta(0.5, steps=10), exclude=["5"]).prune(0.5)
    pruned = zeros_of(model)
    for other in (model, copy.deepcopy(model)):
        for criterion, before in (("frobenius", pruned), ("component", pruned)):
            second = Pruner(other, ZhuGupta(0.9, steps=10**6), criterion)
            second.prune(0.1)
            train(other, second)
            zero = zeros_of(other)
            assert all((zero[n] | ~before[n]).all() for n in before)
            assert same(
                {n: zero[n] for n in ("0.weight", "3.weight")}, {n: pruned[n] for n in ("0.weight", "3.weight")}
            )
    back = Pruner(model, ZhuGupta(0.9, steps=10**6), "frobenius")  # pruned by components before
    back.prune(0.5)
    assert all((zeros_of(model)[n] | ~pruned[n]).all() for n in pruned)


def test_what_another_pruner_pruned_is_held_also_where_this_one_does_not_prune():
    model = model_of(None)
    Pruner(model, ZhuGupta(0.5, steps=10)).prune(0.5)
    pruned = zeros_of(model)
    second = Pruner(copy.deepcopy(model), ZhuGupta(0.5, steps=10**6), exclude=["0"])
    train(second.model, second, make=FOREIGN)
    with torch.no_grad():
        second.model[0].weight.add_(1)
    second.step()
    assert same(pruned, zeros_of(second.model))


def test_pruning_tuples_does_not_bring_pruned_components_back():
    layer = nn.AlgebraLinear(16, 16, algebra="H", dtype=torch.float64)
    Pruner(layer, ZhuGupta(0.5, steps=10), "component").prune(0.5)
    before = layer.weight == 0
    pruner = Pruner(layer, ZhuGupta(0.5, steps=10))
    pruner.prune(0.25)
    with torch.no_grad():
        layer.weight.add_(1)
    pruner.step()
    after = layer.weight == 0
    assert after[before].all()
    assert float(after.all(-1).double().mean()) == 0.25


@pytest.mark.parametrize("bits", [None, 8])
def test_state_dicts_carry_the_pruned_set(bits, tmp_path):
    model = model_of(bits)
    fresh, other = model_of(bits), copy.deepcopy(model)
    assert not any("keep" in name for name in model.state_dict())  # nothing extra before anything is pruned
    Pruner(model, ZhuGupta(0.5, steps=10), exclude=["5"]).prune(0.5)
    pruned = zeros_of(model)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt")
    fresh.load_state_dict(state)
    assert same(pruned, zeros_of(fresh))
    train(fresh, Pruner(fresh, ZhuGupta(0.5, steps=10**6)))
    assert same(pruned, zeros_of(fresh))
    (lognet.unwrap if bits else lognet.wrap)(fresh)
    assert same(pruned, zeros_of(fresh))
    fresh = (lognet.unwrap if not bits else lognet.wrap)(fresh)
    fresh.load_state_dict(other.state_dict())  # a state without pruning
    assert get_mask(fresh[3], "weight") is None
    assert all(not zero.any() for zero in zeros_of(fresh).values())
    with torch.device("meta"):
        assigned = model_of(None)
    if bits is None:
        assigned.load_state_dict(state, assign=True)
        assert same(pruned, zeros_of(assigned))
        train(assigned, Pruner(assigned, ZhuGupta(0.5, steps=10**6)))
        assert same(pruned, zeros_of(assigned))


@pytest.mark.parametrize(("saved", "loaded"), [(None, 8), (8, None)])
def test_state_dicts_carry_the_pruned_set_between_float_and_log(saved, loaded):
    model, other = model_of(saved), model_of(loaded)
    Pruner(model, ZhuGupta(0.5, steps=10), "component").prune(0.5)
    other.load_state_dict(
        {n: v * 0.5 if v.is_floating_point() and not saved else v for n, v in model.state_dict().items()}
    )
    assert same(zeros_of(model), zeros_of(other))
    train(other, Pruner(other, ZhuGupta(0.5, steps=10**6)))
    assert same(zeros_of(model), zeros_of(other))


def test_a_state_dict_without_the_weight_leaves_the_pruned_set():
    model = nn.AlgebraLinear(16, 16, algebra="H")
    Pruner(model, ZhuGupta(0.5, steps=10)).prune(0.5)
    model.load_state_dict({"bias": torch.ones(16)}, strict=False)
    assert int((~get_mask(model, "weight")).sum()) == 8


def test_a_state_dict_of_other_sizes_is_refused_as_torch_does():
    model = nn.AlgebraLinear(16, 16, algebra="H")
    Pruner(model, ZhuGupta(0.5, steps=10)).prune(0.5)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        nn.AlgebraLinear(32, 16, algebra="H").load_state_dict(model.state_dict())


def test_gradients_of_pruned_floats_are_zero_also_after_rewrapping():
    model = model_of(None)
    pruner = Pruner(model, ZhuGupta(0.5, steps=10**6))
    pruner.prune(0.5)
    for _ in range(3):
        lognet.unwrap(lognet.wrap(model))
        pruner.step()
        model(torch.randn(2, 4, 4, 4)).square().sum().backward()
        for i in (0, 3, 5):
            pruned = model[i].weight == 0
            assert (model[i].weight.grad[pruned] == 0).all()
            assert (model[i].weight.grad[~pruned] != 0).any()
        model.zero_grad()


def test_the_papers_exclusions():
    resnet = lognet.models.ResNet(18, "H", width=0.125, num_classes=4)
    assert paper_exclusions(resnet) == ["stem.0", "stem.1", "head.0"]
    pruner = Pruner(resnet, ZhuGupta(0.5, steps=10), exclude=paper_exclusions(resnet))
    pruner.prune(0.5)
    sparsity = pruner.sparsity()
    assert set(sparsity.values()) == {0.5}
    prunable = {
        n for n, p in resnet.named_parameters() if n.endswith("weight") and p.shape[-1:] == (4,) and p.dim() > 2
    }
    assert prunable - sparsity.keys() == {"stem.1.weight", "head.0.weight"}
    real_stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Linear(8, 8))
    lognet.algebraize(real_stem, "H", exclude=["2"])
    assert paper_exclusions(real_stem) == ["0", "2"]
    assert list(Pruner(real_stem, ZhuGupta(0.5, steps=10), exclude=paper_exclusions(real_stem)).sparsity()) == [
        "1.weight"
    ]
    assert paper_exclusions(torch.nn.ReLU()) == []


def test_recurrent_layers_are_pruned_and_norms_are_not():
    gru = nn.AlgebraGRU(8, 8, algebra="M2R", bits=8)
    model = torch.nn.Sequential(gru, nn.AlgebraWhitening(8, algebra="M2R"))
    pruner = Pruner(model, ZhuGupta(0.5, steps=10), "max_eigenvalue")
    pruner.prune(0.5)
    assert pruner.sparsity() == {"0.weight_ih_l0": 0.5, "0.weight_hh_l0": 0.5}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tuple_scores(torch.ones(3, 4), "H", "norm"), "criterion must be one of 'frobenius'"),
        (lambda: tuple_scores(torch.ones(3, 3), "H"), "4 components of H last"),
        (lambda: ZhuGupta(1.0, 10), r"sparsity must lie in \[0, 1\)"),
        (lambda: ZhuGupta(0.5, 10, start=0.8, end=0.2), "start < end"),
        (lambda: ZhuGupta(0.5, 0), "steps and every must be at least 1"),
        (lambda: Pruner(torch.nn.Linear(2, 2), ZhuGupta(0.5, 10)), "no weights of tuples to prune"),
        (lambda: Pruner(nn.AlgebraLinear(4, 4, algebra="H"), ZhuGupta(0.5, 10)).prune(2), r"sparsity must lie in \[0, 1\]"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
