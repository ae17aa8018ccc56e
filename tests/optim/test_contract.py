"""What every optimizer of torch does, Madam does: the behaviours that PyTorch's own suite asks of its `OptimizerInfo` table.

The defaults of Madam are not repeated here, so that they may change.
"""

import copy
import inspect
import io
import itertools

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.optim.swa_utils import SWALR
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

import lognet
from lognet import LogTensor
from lognet.optim import Madam


def inputs(device, dtype=None):
    return [
        OptimizerInput(params=None, kwargs={}, desc="default"),
        OptimizerInput(params=None, kwargs={"lr": 0.05}, desc="another lr"),
        OptimizerInput(params=None, kwargs={"lr": torch.tensor(0.05)}, desc="tensor lr"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "momentum": 0.9}, desc="momentum"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "beta": 0.9, "bias_correction": False}, desc="as printed"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "sign_crossing": False, "rounding": "nearest"}, desc="paper"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "maximize": True, "g_bound": 2.0}, desc="maximize"),
    ]


def error_inputs(device, dtype):
    w = nn.Parameter(torch.randn(2, device=device, dtype=dtype))
    bad = [
        ({"lr": -1.0}, ValueError, "lr must be at least 0"),
        ({"p_scale": 0.0}, ValueError, "p_scale must be positive"),
        ({"beta": 1.0}, ValueError, "beta must be in"),
        ({"weight_decay": 0.1}, ValueError, "no weight_decay"),
    ]
    own = [
        ErrorOptimizerInput(OptimizerInput(params=[w], kwargs=k), error_type=error, error_regex=words)
        for k, error, words in bad
    ]
    return get_error_inputs_for_all_optims(device, dtype) + own


INFO = OptimizerInfo(
    Madam,
    optim_inputs_func=inputs,
    optim_error_inputs_func=error_inputs,
    scheduler_inputs=(
        [lambda opt: schedulers.StepLR(opt, gamma=0.9, step_size=10)],
        [lambda opt: schedulers.ReduceLROnPlateau(opt)],
        [
            lambda opt: schedulers.LinearLR(opt, start_factor=0.4, total_iters=4),
            lambda opt: schedulers.ExponentialLR(opt, gamma=0.99),
        ],
    ),
    supported_impls=("foreach",),
    not_og_supported_flags=("foreach",),
    supports_complex=False,
)
INPUTS = {given.desc: given.kwargs for given in INFO.optim_inputs_func("cpu")}
KINDS = ["float32", "bfloat16", "float64", "log", "log bfloat16", "mixed"]


def is_accepted(**kwargs):
    try:
        return bool(Madam([nn.Parameter(torch.ones(1))], **kwargs))
    except ValueError:
        return False


STATE_BITS = [bits for bits in range(1, 65) if is_accepted(state_bits=bits)]


class Problem:
    """Weight, bias and a loss that both signs of a step can change."""

    def __init__(self, kind="float32", seed=0, order=("weight", "bias")):
        generator = torch.Generator().manual_seed(seed)
        dtype = getattr(torch, kind.removeprefix("log ") if kind.startswith(("log ", "float", "bfloat")) else "float32")
        randn = lambda *shape: torch.randn(shape, generator=generator).to(dtype)
        wrapped = {"log": ("weight", "bias"), "log bfloat16": ("weight", "bias"), "mixed": ("weight",)}.get(kind, ())
        self.tensors = {
            name: nn.Parameter(LogTensor.from_float(x, scale=8.0) if name in wrapped else x)
            for name, x in (("weight", randn(10, 5)), ("bias", randn(10)))
        }
        self.params = [self.tensors[name] for name in order]
        self.x = randn(5)

    def loss(self):
        return (self.tensors["weight"] @ self.x + self.tensors["bias"]).square().sum()

    def closure(self, optimizer):
        def call():
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        return call

    def values(self):
        return [p.detach().clone() for p in self.params]


def assert_equal(xs, ys):
    for x, y in zip(xs, ys, strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def same(a, b):
    """Of state dicts, whatever the order of their keys: exactly, dtypes included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def run(optimizer, problem, steps, schedulers=()):
    for _ in range(steps):
        loss = optimizer.step(problem.closure(optimizer))
        for scheduler in schedulers:
            scheduler.step(loss.detach()) if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else (
                scheduler.step()
            )
    return loss


both = pytest.mark.parametrize("kind", KINDS)
each = pytest.mark.parametrize("desc", INPUTS)


def test_infos_do_not_specify_global_cliquey_kwargs():
    accepted = inspect.signature(Madam).parameters
    for kwargs in INPUTS.values():
        assert not {"foreach", "fused", "differentiable"} & kwargs.keys()
        assert kwargs.keys() <= accepted.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("i", range(len(error_inputs("cpu", torch.float32))))
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
    optimizer = Madam(problem.params, **{"lr": 0.05, **kwargs})
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
    optimizer = Madam([{"params": [weight]}, {"params": [bias], "lr": 0.01}], lr=0.05)
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
    optimizer = Madam([{"params": [weight], "lr": 0.0}, {"params": [bias]}], lr=0.1)
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
