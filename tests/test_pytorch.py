"""A wrapped model where a float model would be: the behaviours of docs/pytorch.md that no other file tests."""

import copy
import io
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import lognet
from lognet import LogTensor
from lognet.optim import Madam

ROOT = Path(__file__).resolve().parents[1]
both_widths = pytest.mark.parametrize("bits", [8, 10])


def net(bits=8, seed=0):
    torch.manual_seed(seed)
    return lognet.wrap(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)), bits=bits)


def data(n=5):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(7))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    assert all(type(p.grad) is torch.Tensor for p in model.parameters())
    return [p.grad.clone() for p in model.parameters()]


def codes(model):
    return [(p.exponent, p.signs, p.scale.clone()) for p in model.parameters()]


def assert_same_codes(a, b):
    assert all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


# Movement


@both_widths
@pytest.mark.parametrize(
    "move",
    [
        lambda m: m.to(torch.bfloat16),
        lambda m: m.half(),
        lambda m: m.double(),
        lambda m: m.to("cpu", torch.float16, non_blocking=True),
        lambda m: m.to(torch.ones(1, dtype=torch.float64)),
        lambda m: m.type(torch.float64),
        lambda m: m.half().float().double().bfloat16().float(),
        lambda m: copy.deepcopy(m),
        lambda m: m.cpu(),
        lambda m: m.to(memory_format=torch.contiguous_format),
    ],
)
def test_models_move_and_codes_never_change(bits, move):
    model = net(bits)
    before, ids = codes(model), [id(p) for p in model.parameters()]
    moved = move(model)
    assert all(isinstance(p, LogTensor) and isinstance(p, nn.Parameter) for p in moved.parameters())
    assert_same_codes(codes(moved), before)
    dtype = moved[0].weight.dtype
    gradients(moved, moved(data().to(dtype)).sum())
    assert all(p.grad.dtype == p.dtype for p in moved.parameters())
    if moved is model:
        assert [id(p) for p in model.parameters()] == ids  # an optimizer made before keeps its parameters


@pytest.mark.parametrize("setting", ["swap_module_params_on_conversion", "overwrite_module_params_on_conversion"])
def test_models_move_under_each_of_torchs_conversion_settings(setting):
    model = net()
    before = codes(model)
    switch, old = getattr(torch.__future__, f"set_{setting}"), getattr(torch.__future__, f"get_{setting}")()
    switch(True)
    try:
        model.double()
        model.load_state_dict(net(seed=1).state_dict())
        model.load_state_dict(net().state_dict())
    finally:
        switch(old)
    assert_same_codes(codes(model), before)


def test_what_keeps_torch_from_moving_a_model_is_an_error_and_loses_nothing():
    """Torch swaps such parameters on a move, and cannot while something else holds on to them."""
    model = net()
    before, holder = codes(model), weakref.ref(model[0].weight)
    with pytest.raises(RuntimeError, match="Couldn't swap Linear.weight"):
        model.double()
    assert_same_codes(codes(model), before)
    assert holder() is model[0].weight
    del holder
    assert model.double()[0].weight.dtype == torch.float64


# Being a tensor


def test_comparison_norm_and_format():
    w = net()[0].weight.detach()
    dense = w.dequantize()
    assert torch.equal(w, dense)
    assert torch.equal(dense, w)
    assert (w == dense).all()
    assert not (w != dense).any()
    assert torch.allclose(w, w.clone())
    torch.testing.assert_close(w, dense)
    torch.testing.assert_close(dense, w)
    assert not torch.equal(w, dense + 1)
    assert w.norm() == dense.norm()
    assert torch.equal(w.abs(), dense.abs())
    assert torch.linalg.vector_norm(w, 1) == dense.abs().sum()
    assert f"{w[0, 0]:.3f}" == f"{dense[0, 0]:.3f}"
    assert f"{w[0, 0]}".startswith("LogTensor(")
    assert float(w[0, 0]) == float(dense[0, 0])
    assert hash(w) == hash(w)
    assert len(w) == 8


# Gradients


def test_gradients_accumulate_are_clipped_and_zeroed():
    model, x = net(), data()
    once = gradients(model, model(x).square().sum())
    model(x).square().sum().backward()
    for p, g in zip(model.parameters(), once, strict=True):
        assert torch.equal(p.grad, 2 * g)
    norm = parameters_to_vector(2 * g for g in once).norm()
    for foreach in (True, False, None):
        gradients(model, 2 * model(x).square().sum())
        torch.testing.assert_close(clip_grad_norm_(model.parameters(), 0.5, foreach=foreach), norm)
        assert parameters_to_vector(p.grad for p in model.parameters()).norm() == pytest.approx(0.5, rel=1e-4)
    clip_grad_value_(model.parameters(), 0.01)
    assert max(p.grad.abs().max() for p in model.parameters()) <= 0.01
    model.zero_grad(set_to_none=False)
    assert not any(p.grad.any() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_autocast_and_hooks_and_double_backward():
    model, x, seen = net(), data(), []
    model[0].weight.register_hook(lambda g: seen.append(type(g)))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert seen == [torch.Tensor]
    grads = torch.autograd.grad(model(x).square().sum(), list(model.parameters()), create_graph=True)
    model.zero_grad()
    sum(g.square().sum() for g in grads).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@both_widths
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing_gives_the_same_gradients(bits, use_reentrant):
    model, x = net(bits), data().requires_grad_()
    plain = gradients(model, model(x).square().sum())
    again = gradients(model, checkpoint(model, x, use_reentrant=use_reentrant).square().sum())
    if use_reentrant:  # its first pass is in inference, where few rows are summed in another order
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)
    else:
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@both_widths
def test_functional_call_and_transforms(bits):
    model, other, x = net(bits), net(bits, seed=1), data()
    params = dict(other.named_parameters())
    loss = lambda params, x: torch.func.functional_call(model, params, (x,)).square().sum()
    assert torch.equal(torch.func.functional_call(model, params, (x,)), other(x))
    floats = {name: p.detach().dequantize() for name, p in params.items()}
    torch.testing.assert_close(loss(floats, x), loss(params, x))
    expected = dict(zip(params, gradients(other, other(x).square().sum()), strict=True))
    found = torch.func.grad(loss)(params, x)
    torch.testing.assert_close(found, expected)
    assert all(type(g) is torch.Tensor for g in found.values())
    detached = {name: p.detach() for name, p in params.items()}
    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(detached, x[:, None])
    for i in range(len(x)):
        one = torch.func.grad(loss)(detached, x[i : i + 1])
        torch.testing.assert_close({name: g[i] for name, g in rows.items()}, one)


LAYERS = {  # and the shape of one sample
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "convolution": (lambda: nn.Conv1d(3, 4, 2, padding="same"), (3, 6)),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 2, stride=2), (2, 3, 3)),
    "norm": (lambda: nn.LayerNorm(6), (3, 6)),
    "PHM": (lambda: lognet.nn.PHMLinear(6, 4, 2), (3, 6)),
    "complex": (lambda: lognet.nn.AlgebraLinear(8, 8, algebra="C"), (3, 8)),
    "quaternions": (lambda: lognet.nn.AlgebraLinear(8, 8, algebra="H"), (3, 8)),
    "Kronecker": (lambda: lognet.nn.KroneckerLinear(6, 4, 2), (3, 6)),
}
TRANSFORMS = {  # and what they should give, one sample or one reverse pass at a time
    "vmap": (lambda f, x: torch.func.vmap(f)(x), lambda f, x: torch.stack([f(one) for one in x])),
    "jacrev": (lambda f, x: torch.func.jacrev(f)(x[0]), lambda f, x: jacobian(f, x[0])),
    "jacfwd": (lambda f, x: torch.func.jacfwd(f)(x[0]), lambda f, x: jacobian(f, x[0])),
    "hessian": (
        lambda f, x: torch.func.hessian(lambda x: f(x).square().sum())(x[0]),
        lambda f, x: hessian(lambda x: f(x).square().sum(), x[0]),
    ),
    "jvp": (
        lambda f, x: torch.func.jvp(f, (x[0],), (x[1],))[1],
        lambda f, x: torch.tensordot(jacobian(f, x[0]), x[1], x[1].dim()),
    ),
    "forward mode": (
        lambda f, x: forward_mode(f, x[0], x[1]),
        lambda f, x: torch.tensordot(jacobian(f, x[0]), x[1], x[1].dim()),
    ),
}


def forward_mode(f, x, tangent):
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(f(torch.autograd.forward_ad.make_dual(x, tangent))).tangent


# Torch's own, when it first compiles its rules of forward-mode differentiation.
of_torchs = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@of_torchs
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_transforms_over_inputs(layer, transform):
    make, shape = LAYERS[layer]
    model, x = lognet.wrap(make()).double(), torch.randn(2, *shape, dtype=torch.float64)
    of, reference = TRANSFORMS[transform]
    found, expected = of(model, x), reference(model, x)
    torch.testing.assert_close(found, expected)
    if transform == "vmap":
        grads = [gradients(model, y.square().sum()) for y in (found, expected)]
        torch.testing.assert_close(*grads)


def test_vmap_over_indices():
    model = lognet.wrap(nn.Embedding(7, 3, padding_idx=0))
    index = torch.tensor([[1, 0, 6], [6, 2, 6]])
    found, expected = torch.func.vmap(model)(index), model(index)
    assert torch.equal(found, expected)
    torch.testing.assert_close(*(gradients(model, y.square().sum()) for y in (found, expected)))


def test_ensembles():
    models, x = [net(seed=seed) for seed in range(3)], data()
    stacked, buffers = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    of = lambda params, buffers: torch.func.functional_call(base, (params, buffers), (x,))
    found = torch.func.vmap(of)(stacked, buffers)
    torch.testing.assert_close(found, torch.stack([model(x) for model in models]))
    found.square().sum().backward()
    expected = [gradients(model, model(x).square().sum()) for model in models]
    for p, *grads in zip(stacked.values(), *expected, strict=True):
        torch.testing.assert_close(p.grad, torch.stack(grads))


@of_torchs
@pytest.mark.traces
def test_compiled_transforms():
    torch._dynamo.reset()
    model, x = net().requires_grad_(False), data()
    of = torch.func.vmap(torch.func.jacrev(lambda x: model(x)))
    torch.testing.assert_close(torch.compile(of, fullgraph=True, backend="aot_eager")(x), of(x))


@of_torchs
def test_tracing_by_torch_jit_says_what_to_do_instead():
    with pytest.raises(NotImplementedError, match="torch.jit.trace cannot record LogTensors: use torch.export"):
        torch.jit.trace(net(), data())


@pytest.mark.parametrize(
    ("make", "shape"),
    [(net, (5, 6)), (lambda: lognet.wrap(lognet.nn.AlgebraLinear(8, 8, algebra="H")), (5, 8))],
)
def test_shapes_on_the_meta_device(make, shape):
    model = make()
    expected, meta = model(torch.randn(shape)).shape, model.to("meta")
    out = meta(torch.randn(shape, device="meta"))
    out.sum().backward()
    assert (out.shape, out.device.type) == (expected, "meta")
    assert all(p.grad.shape == p.shape for p in meta.parameters())
    table = lognet.wrap(nn.Embedding(5, 3)).to("meta")
    assert table(torch.ones(2, dtype=torch.int64, device="meta")).shape == (2, 3)


@pytest.mark.traces
@both_widths
def test_export(bits):
    model, x = net(bits), data()
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.export.load(buffer).module()(x), model(x))


# Averages


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"multi_avg_fn": get_ema_multi_avg_fn(0.999)},
        {"multi_avg_fn": get_swa_multi_avg_fn()},
        {"avg_fn": lambda average, p, n: average + (p - average) / (n + 1)},
    ],
)
def test_averages_are_float_and_exact(kwargs):
    """Of an unwrapped copy: on a ladder, an average that moves by less than half a rung would not move at all."""
    model = net(bits=4)
    averaged = AveragedModel(lognet.unwrap(copy.deepcopy(model)), **kwargs)
    assert all(type(p) is nn.Parameter for p in averaged.module.parameters())
    dense = lognet.unwrap(copy.deepcopy(model))
    reference = AveragedModel(dense, **kwargs)
    optimizer = Madam(model.parameters(), lr=0.5, warmup=0)
    for _ in range(10):
        gradients(model, model(data()).square().sum())
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(model.parameters(), dense.parameters(), strict=True):
                q.copy_(p)
        averaged.update_parameters(model)
        reference.update_parameters(dense)
    for p, q, start in zip(*(m.parameters() for m in (averaged.module, reference.module, model)), strict=True):
        torch.testing.assert_close(p, q)
        assert not torch.equal(p, start)


def test_an_exponential_average_held_on_a_ladder_warns():
    """The other forms write floats that torch has averaged, which cannot be told from any other write."""
    model = net()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    averaged.update_parameters(model)  # the first is a copy
    with pytest.warns(UserWarning, match="stands still once it moves by less than half a rung: average a float copy"):
        averaged.update_parameters(model)


# Pruning


def test_torchs_pruning():
    model, x = net(), data()
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.random_structured(model[3], "weight", 0.25, dim=1)
    zeros = [layer.weight == 0 for layer in (model[0], model[3])]
    assert [int(z.sum()) for z in zeros] == [24, 6]
    optimizer = Madam(model.parameters(), lr=0.5, warmup=0)
    before = codes(model)
    gradients(model, model(x).square().sum())
    optimizer.step()
    assert not torch.equal(model[0].weight_orig.exponent, before[1][0])
    with pytest.warns(UserWarning, match=r"24 of 48 values given to .data are zero and become the last rung, \+-0.0"):
        prune.remove(model[0], "weight")
    assert (model[0].weight != 0).all()
    model[0].weight.set_mask_(~zeros[0])
    gradients(model, model(x).square().sum())
    Madam(model.parameters(), lr=0.5, warmup=0).step()
    assert torch.equal(model[0].weight == 0, zeros[0])


# The table


def test_the_tests_that_the_guide_names_exist():
    rows = re.findall(r"^\| .+ \| `(tests/[\w/]+\.py)`: (.+) \|$", (ROOT / "docs/pytorch.md").read_text(), re.MULTILINE)
    assert len(rows) >= 20
    for path, names in rows:
        source = (ROOT / path).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert f"def test_{name}(" in source, f"{path}: test_{name}"
