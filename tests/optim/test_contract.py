"""What every optimizer of torch does, Madam does: the behaviours that PyTorch's own suite asks of its `OptimizerInfo` table.

The state has tests of its own, in test_state.py.
"""

import copy
import inspect

import pytest
import torch
from oracles.contract import INFO, INPUTS, KINDS, OptimizerErrorEnum, Problem, assert_equal, run, same
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.optim.swa_utils import SWALR

from lognet.optim import Madam

both = pytest.mark.parametrize("kind", KINDS)
each = pytest.mark.parametrize("desc", INPUTS)


def test_infos_do_not_specify_global_cliquey_kwargs():
    accepted = inspect.signature(Madam).parameters
    for kwargs in INPUTS.values():
        assert not {"foreach", "fused", "differentiable"} & kwargs.keys()
        assert kwargs.keys() <= accepted.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("i", range(len(INFO.optim_error_inputs_func("cpu", torch.float32))))
def test_errors(i, dtype):
    bad = INFO.optim_error_inputs_func("cpu", dtype)[i]
    given = bad.optimizer_error_input
    params = given.params if given.params is not None else [nn.Parameter(torch.ones(2, dtype=dtype))]
    assert bad.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
    if issubclass(bad.error_type, Warning):
        with pytest.warns(bad.error_type, match=bad.error_regex):
            Madam(params, **given.kwargs)
    else:
        with pytest.raises(bad.error_type, match=bad.error_regex):
            Madam(params, **given.kwargs)


@both
@each
@pytest.mark.parametrize("scheduled", range(1 + len(INFO.scheduler_inputs)))
def test_forloop_goes_right_direction(kind, desc, scheduled):
    kwargs = copy.deepcopy(INPUTS[desc])
    problem = Problem(kind)
    optimizer = Madam(problem.params, **{"lr": 0.05, "warmup": 0, **kwargs})
    made = [make(optimizer) for make in (INFO.scheduler_inputs[scheduled - 1] if scheduled else ())]
    before = problem.loss().item()
    run(optimizer, problem, 20, made)
    after = problem.loss().item()
    assert after > before if kwargs.get("maximize") else after < before


@both
@pytest.mark.parametrize("scheduled", range(1 + len(INFO.scheduler_inputs)))
def test_param_group_with_lrscheduler_goes_right_direction(kind, scheduled):
    problem = Problem(kind)
    weight, bias = problem.params
    optimizer = Madam([{"params": [weight]}, {"params": [bias], "lr": 0.02}], lr=0.1, warmup=0)
    made = [make(optimizer) for make in (INFO.scheduler_inputs[scheduled - 1] if scheduled else ())]
    before = problem.loss().item()
    run(optimizer, problem, 20, made)
    assert problem.loss().item() < before


def test_non_contiguous_parameters_move_as_contiguous_ones():
    dense = torch.randn(10, 5)
    strided = nn.Parameter(torch.empty(5, 10).t().copy_(dense))
    plain = nn.Parameter(dense.clone())
    assert not strided.is_contiguous()
    for w in (strided, plain):
        optimizer = Madam([w], lr=0.05, momentum=0.9)
        for t in range(5):
            w.grad = torch.randn(10, 5, generator=torch.Generator().manual_seed(t))
            optimizer.step()
    torch.testing.assert_close(strided, plain)


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.5, total_iters=3),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 6),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, 3),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=10),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, threshold=10.0),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o, 0.5, 2), schedulers.ExponentialLR(o, 0.9)], [3]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.5, 2), schedulers.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: SWALR(o, 0.02, 3),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # SequentialLR's own, on torch 2.6
@pytest.mark.parametrize("kind", ["float32", "mixed"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_sets_the_lr_it_sets_elsewhere(name, kind):
    """And a tensor lr, of either shape, gives the weights that a float gives."""
    rates, ends = [], []
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5),
        lambda p: Madam(p, lr=0.05, momentum=0.5),
        lambda p: Madam(p, lr=torch.tensor(0.05, dtype=torch.float64), momentum=0.5),
        lambda p: Madam(p, lr=torch.tensor([0.05], dtype=torch.float64), momentum=0.5),
    ):
        problem = Problem("float32" if len(rates) == 0 else kind)
        optimizer = make(problem.params)
        given = optimizer.param_groups[0]["lr"]
        try:
            scheduler = SCHEDULERS[name](optimizer)
        except (TypeError, RuntimeError):  # schedulers that do not take a tensor, for any optimizer, on old versions
            assert isinstance(given, torch.Tensor)
            assert torch.__version__.startswith("2.6.")
            continue
        seen = []
        for _ in range(6):
            seen.append(float(optimizer.param_groups[0]["lr"]))
            run(optimizer, problem, 1, [scheduler])
        rates.append(seen)
        ends.append(problem.values())
    assert len(set(rates[1])) > 1
    for other in rates[1:]:
        assert other == pytest.approx(rates[0], rel=1e-6)
    for other in ends[2:]:
        torch.testing.assert_close(other, ends[1])


def test_a_warning_that_is_an_error_comes_before_anything_moves():
    problem = Problem("mixed")
    optimizer = Madam(problem.params)
    run(optimizer, problem, 1)
    values, state = problem.values(), copy.deepcopy(optimizer.state_dict())
    problem.params[-1].grad[0] = torch.nan
    with pytest.raises(UserWarning, match="parameter 1 of shape"):
        optimizer.step()
    assert_equal(problem.values(), values)
    assert same(optimizer.state_dict(), state)


@both
@each
def test_foreach_matches_forloop(kind, desc):
    """On parameters of several shapes, a scalar and an empty one among them, some of which have no gradient at times."""
    ends = []
    for foreach in (True, False, None):
        problem = Problem(kind)
        shapes = [(), (0,), (3, 2, 1), (17,)]
        more = [nn.Parameter(torch.ones(shape, dtype=problem.params[0].dtype)) for shape in shapes]
        strided = nn.Parameter(torch.ones(4, 6, dtype=more[0].dtype).t())
        params = [*problem.params, *more, strided, nn.Parameter(torch.ones(3, dtype=torch.float64))]
        optimizer = Madam([{"params": params[:4]}, {"params": params[4:], "lr": 0.02}], foreach=foreach, **INPUTS[desc])
        for t in range(6):
            for i, p in enumerate(params):
                g = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i)).to(p.dtype)
                p.grad = g if (i + t) % 4 else None
            optimizer.step()
        state = optimizer.state_dict()["state"]
        ends.append(([p.detach().clone() for p in params], state))
    for params, state in ends[1:]:
        assert_equal(params, ends[0][0])
        assert same(state, ends[0][1])


def test_a_tensor_lr_is_kept_and_never_written():
    lr = torch.tensor(0.05)
    problem = Problem()
    optimizer = Madam(problem.params, lr=lr)
    run(optimizer, problem, 3)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.05)
    lr.zero_()
    before = problem.values()
    run(optimizer, problem, 1)
    assert_equal(problem.values(), before)


@both
def test_param_groups_lr(kind):
    problem = Problem(kind)
    weight, bias = problem.params
    before = problem.values()
    optimizer = Madam([{"params": [weight], "lr": 0.0}, {"params": [bias]}], lr=0.1, warmup=0)
    run(optimizer, problem, 5)
    assert torch.equal(weight, before[0])
    assert not torch.equal(bias, before[1])
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]


@both
@each
def test_step_is_noop_when_params_have_no_grad(kind, desc):
    problem = Problem(kind)
    before = problem.values()
    optimizer = Madam(problem.params, **INPUTS[desc])
    optimizer.step()
    assert_equal(problem.values(), before)
    assert not any(optimizer.state.values())


@both
@each
def test_step_is_noop_for_zero_grads(kind, desc):
    problem = Problem(kind)
    before = problem.values()
    optimizer = Madam(problem.params, **INPUTS[desc])
    for _ in range(3):
        for p in problem.params:
            p.grad = torch.zeros(p.shape, dtype=p.dtype)
        optimizer.step()
    assert_equal(problem.values(), before)


@both
def test_nothing_is_quantised_when_made_and_a_vanishing_lr_moves_nothing(kind):
    problem = Problem(kind)
    before = problem.values()
    optimizer = Madam(problem.params, lr=1e-28, **({"rounding": "stochastic"}))
    assert_equal(problem.values(), before)
    run(optimizer, problem, 5)
    assert_equal(problem.values(), before)


@each
def test_optimizer_can_be_printed(desc):
    weight, bias = Problem().params
    optimizer = Madam([{"params": [weight]}, {"params": [bias], "lr": 0.25}], **INPUTS[desc])
    text = repr(optimizer)
    assert text.startswith("Madam (\nParameter Group 0")
    assert "Parameter Group 1" in text
    assert "lr: 0.25" in text
    assert all(f"{name}: " in text for name in optimizer.defaults)


@both
def test_step_hooks(kind):
    problem, calls = Problem(kind), []
    optimizer = Madam(problem.params)
    note = lambda name: lambda o, args, kwargs: calls.append((name, o is optimizer))
    handles = [
        optimizer.register_step_post_hook(note("post")),
        optimizer.register_step_pre_hook(note("pre")),
        register_optimizer_step_post_hook(note("global post")),
        register_optimizer_step_pre_hook(note("global pre")),
    ]
    try:
        run(optimizer, problem, 1)
        assert calls == [(name, True) for name in ("global pre", "pre", "post", "global post")]
        optimizer.step()
        assert len(calls) == 8
    finally:
        for handle in handles:
            handle.remove()
    run(optimizer, problem, 1)
    assert len(calls) == 8


def test_a_step_pre_hook_may_replace_the_arguments():
    problem = Problem()
    optimizer = Madam(problem.params, lr=0.05)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, problem.closure(o)), {}))
    assert optimizer.step() > 0
