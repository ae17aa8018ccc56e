"""The state of Madam saved, loaded, copied and resumed, as PyTorch's own suite asks of any optimizer."""

import copy
import inspect
import io
import itertools

import pytest
import torch
from oracles.contract import INPUTS, KINDS, STATE_BITS, Problem, assert_equal, run, same
from torch import nn

import lognet
from lognet.optim import Madam
from lognet.optim.state import recode_averages

both = pytest.mark.parametrize("kind", KINDS)
each = pytest.mark.parametrize("desc", INPUTS)


@both
@each
def test_state_dict_deterministic(kind, desc):
    problem = Problem(kind)
    optimizer = Madam(problem.params, **INPUTS[desc])
    run(optimizer, problem, 3)
    other = copy.deepcopy(problem)
    twin = Madam(other.params, **INPUTS[desc])
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(5):
        run(optimizer, problem, 1)
        run(twin, other, 1)
        assert_equal(problem.values(), other.values())
    assert same(optimizer.state_dict(), twin.state_dict())
    twin.param_groups.extend(twin.param_groups)
    assert same(optimizer.state_dict()["param_groups"][-1], twin.state_dict()["param_groups"][-1])


@both
def test_can_load_older_state_dict(kind):
    """Of a version that did not know one of the hyperparameters, whichever."""
    for name in [*inspect.signature(Madam).parameters][2:]:
        problem = Problem(kind)
        optimizer = Madam(problem.params)
        if name not in optimizer.defaults:
            continue
        run(optimizer, problem, 2)
        old = copy.deepcopy(optimizer.state_dict())
        for group in old["param_groups"]:
            del group[name]
        optimizer.load_state_dict(old)
        assert optimizer.param_groups[0][name] == optimizer.defaults[name]
        run(optimizer, problem, 1)


@pytest.mark.parametrize("named", list(itertools.product([False, True], repeat=2)), ids=str)
def test_can_load_from_to_named_state_dict(named):
    def make(with_names):
        problem = Problem("mixed")
        return problem, Madam(problem.tensors.items() if with_names else problem.params, lr=0.05, momentum=0.9)

    (a, first), (b, second) = make(named[0]), make(named[1])
    run(first, a, 3)
    run(second, b, 1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for p, q in zip(a.params, b.params, strict=True):
        q.data.copy_(p.detach())
    assert ("param_names" in first.state_dict()["param_groups"][0]) == named[0]
    assert ("param_names" in second.state_dict()["param_groups"][0]) == any(named)  # as for any torch optimizer
    run(first, a, 3)
    run(second, b, 3)
    assert_equal(a.values(), b.values())


@both
@each
@pytest.mark.parametrize("weights_only", [True, False])
def test_save_load_equality_with_weights_only(kind, desc, weights_only):
    problem = Problem(kind)
    optimizer = Madam(problem.params, **INPUTS[desc])
    run(optimizer, problem, 3)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    other = Madam(Problem(kind).params, **INPUTS[desc])
    other.load_state_dict(torch.load(buffer, weights_only=weights_only))
    assert same(other.state_dict(), optimizer.state_dict())


@both
def test_load_nontensor_step(kind):
    problem = Problem(kind)
    optimizer = Madam(problem.params)
    run(optimizer, problem, 3)
    old = copy.deepcopy(optimizer.state_dict())
    for state in old["state"].values():
        state["step"] = float(state["step"])
    optimizer.load_state_dict(old)
    run(optimizer, problem, 1)
    assert all(isinstance(s["step"], torch.Tensor) and s["step"] == 4 for s in optimizer.state.values())


@both
@pytest.mark.parametrize("state_bits", STATE_BITS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_resume_is_bit_for_bit(kind, state_bits, momentum):
    make = lambda problem: Madam(problem.params, lr=0.05, momentum=momentum, state_bits=state_bits, seed=5)
    problem = Problem(kind)
    optimizer = make(problem)
    run(optimizer, problem, 4)
    buffer = io.BytesIO()
    torch.save((optimizer.state_dict(), problem.params), buffer)
    run(optimizer, problem, 4)
    buffer.seek(0)
    state, params = torch.load(buffer, weights_only=True)
    other = Problem(kind)
    for p, saved in zip(other.params, params, strict=True):
        p.data.copy_(saved.data)
    resumed = make(other)
    resumed.load_state_dict(state)
    run(resumed, other, 4)
    assert_equal(other.values(), problem.values())
    assert same(optimizer.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("kind", ["float64", "log bfloat16"])
@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(STATE_BITS, 2)))
@pytest.mark.parametrize("loaded", [False, True])
def test_state_bits_may_change_in_the_middle_of_a_run(kind, old, new, loaded):
    problem = Problem(kind)
    params = [*problem.params, nn.Parameter(torch.ones((), dtype=problem.params[0].dtype))]
    optimizer = Madam(params, lr=0.05, state_bits=old)

    def step(size):
        for t, p in enumerate(params):
            p.grad = size * torch.randn(p.shape, generator=torch.Generator().manual_seed(t)).to(p.dtype)
        optimizer.step()

    def averages():  # as floats
        states = [(dict(optimizer.state[p]), p) for p in params]
        for state, p in states:
            recode_averages(state, p, torch.float64, 32)
        return [state[name].double() for state, _ in states for name in ("exp_avg", "exp_avg_sq")]

    step(1.0)
    shrink = [optimizer.defaults["momentum"], optimizer.defaults["beta"]] * len(params)
    expected = [x * by for x, by in zip(averages(), shrink, strict=True)]
    if loaded:  # a state dict changed by hand
        changed = copy.deepcopy(optimizer.state_dict())
        changed["param_groups"][0]["state_bits"] = new
        optimizer.load_state_dict(changed)
    else:
        optimizer.param_groups[0]["state_bits"] = new
    step(0.0)
    relative, lowest = (
        (2.0 ** (8 * new / 2**new) - 1, 2.0 ** (2 - 2 * new)) if new < 32 else (0.0, 0.0)
    )  # rounded twice
    for x, y in zip(expected, averages(), strict=True):
        assert ((x - y).abs() <= (relative + 1e-6) * x.abs() + lowest * x.abs().max()).all()
    assert {state.get("state_bits", 32) for state in optimizer.state.values()} == {new}
    step(1.0)
    fresh = Madam(params, state_bits=new)
    fresh.step()
    kinds = lambda o: {n: getattr(v, "dtype", v) for n, v in o.state[params[0]].items()}
    assert kinds(optimizer) == kinds(fresh)


def test_bits_that_no_average_has_change_nothing():
    problem = Problem("mixed")
    optimizer = Madam(problem.params)
    run(optimizer, problem, 2)
    values, state = problem.values(), copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.param_groups[0]["state_bits"] = 7
    with pytest.raises(ValueError, match="state_bits must be one of 32, 16, 8, 4, got 7"):
        optimizer.step()
    assert_equal(problem.values(), values)
    assert same(optimizer.state_dict()["state"], state)


@pytest.mark.parametrize(
    ("make", "change", "words"),
    [
        (
            lambda p: torch.optim.AdamW(p),
            lambda s: None,
            "of another optimizer: its groups have lr, betas.*Start Madam",
        ),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda s: None, "of another optimizer"),
        (Madam, lambda s: s["param_groups"][0].update(params=[1, 0]), r"parameter 1 has shape \(10, 5\) and its state"),
        (Madam, lambda s: s["param_groups"][0].update(beta=1.5), r"beta must be in \[0, 1\), got 1.5"),
        (Madam, lambda s: s["param_groups"][0].update(state_bits=3), "state_bits must be one of"),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(make, change, words):
    problem = Problem()
    other = make(problem.params)
    run(other, problem, 2)
    bad = copy.deepcopy(other.state_dict())
    change(bad)
    optimizer = Madam(problem.params, lr=0.05)
    run(optimizer, problem, 1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(bad)
    assert same(optimizer.state_dict(), before)
    run(optimizer, problem, 1)


@pytest.mark.parametrize("prepend", [False, True])
def test_state_dict_hooks(prepend):
    problem, calls = Problem(), []
    optimizer = Madam(problem.params)
    handles = [optimizer.register_state_dict_pre_hook(lambda o: calls.append("first"))]
    handles.append(optimizer.register_state_dict_pre_hook(lambda o: calls.append("second"), prepend=prepend))
    assert optimizer.state_dict()
    assert calls == (["second", "first"] if prepend else ["first", "second"])
    handles.append(optimizer.register_state_dict_post_hook(lambda o, s: {**s, "more": 1}))
    handles.append(optimizer.register_state_dict_post_hook(lambda o, s: {**s, "saw": "more" in s}, prepend=prepend))
    assert optimizer.state_dict()["more"] == 1
    assert optimizer.state_dict()["saw"] is not prepend
    for handle in handles:
        handle.remove()
    calls.clear()
    assert optimizer.state_dict().keys() == {"state", "param_groups"}
    assert calls == []


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "log bfloat16"])
@pytest.mark.parametrize("prepend", [False, True])
def test_load_state_dict_hooks(kind, prepend):
    problem, calls = Problem(kind), []
    optimizer = Madam(problem.params, momentum=0.5)
    run(optimizer, problem, 2)
    state = copy.deepcopy(optimizer.state_dict())

    def halved(optimizer, state_dict):
        calls.append("halved")
        new = copy.deepcopy(state_dict)
        for values in new["state"].values():
            values["step"] = values["step"] - 1
        return new

    optimizer.register_load_state_dict_pre_hook(halved)
    optimizer.register_load_state_dict_pre_hook(lambda o, s: calls.append("pre"), prepend=prepend)
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("post"))
    dtypes = lambda o: calls.append({v.dtype for s in o.state.values() for v in s.values()})
    optimizer.register_load_state_dict_post_hook(dtypes, prepend=prepend)
    expected = {v.dtype for s in optimizer.state.values() for v in s.values()}
    optimizer.load_state_dict(state)
    pre, post = ["halved", "pre"], ["post", expected]  # hooks see the state as it was saved, not cast
    assert calls == [*(pre[::-1] if prepend else pre), *(post[::-1] if prepend else post)]
    assert all(s["step"] == 1 for s in optimizer.state.values())
    assert all(s["step"] == 2 for s in state["state"].values())


@both
@each
def test_deepcopy_copies_all_public_attrs(kind, desc):
    problem = Problem(kind)
    optimizer = Madam(problem.params, **INPUTS[desc])
    run(optimizer, problem, 2)
    public = lambda o: {name for name in vars(o) if not name.startswith("_")}
    twin = copy.deepcopy(optimizer)
    assert public(twin) == public(optimizer)
    assert same(twin.state_dict(), optimizer.state_dict())


@both
@each
def test_non_empty_state(kind, desc):
    problem = Problem(kind)
    optimizer = Madam(problem.params, **INPUTS[desc])
    run(optimizer, problem, 1)
    assert all(optimizer.state[p] for p in problem.params)


def test_state_dicts_survive_a_wrapper_that_renames_nothing():
    """DataParallel and the like hold the same parameters: an optimizer of either has one state."""
    model = lognet.wrap(nn.Linear(5, 3))
    outer = nn.Sequential(model)
    a, b = Madam(model.parameters()), Madam(outer.parameters())
    outer(torch.ones(2, 5)).sum().backward()
    a.step()
    b.load_state_dict(a.state_dict())
    assert b.state[model.weight]["step"] == 1
