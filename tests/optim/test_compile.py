"""The update and the whole step of Madam under torch.compile: traced once, and equal to eager."""

import copy

import pytest
import torch
from oracles.compiler import COMPILED
from torch import nn

import lognet
from lognet import LogTensor
from lognet.optim import Madam
from lognet.optim.update import direction, running_average, step_codes, step_floats
from lognet.quant import kernels
from lognet.quant.random_bits import key_tensor, mix64, random16


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def never_again():
    return torch._dynamo.config.patch(error_on_recompile=True)


def on_floats(weight, grad, g2bar, lr, correction):
    running_average(g2bar, grad * grad, 0.99)
    r = direction(grad, g2bar, 8.0, correction)
    return step_floats(weight, r, lr, 3.0, True), g2bar


def on_codes(exponent, negative, grad, g2bar, rungs, correction, key):
    running_average(g2bar, grad * grad, 0.99)
    r = direction(grad, g2bar, 8.0, correction)
    moved = step_codes(exponent, negative, r, rungs, 255, True, random16(r.numel(), key).view(r.shape))
    return (*moved, g2bar)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pure_update_is_one_graph_for_all_steps(backend, dtype):
    randn = lambda seed: torch.randn(40, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    floats, codes = (torch.compile(f, fullgraph=True, backend=backend) for f in (on_floats, on_codes))
    exponent = torch.randint(0, 256, (40, 5), dtype=torch.int32)
    with never_again():
        for t in range(1, 5):
            scalar = lambda x: torch.tensor(x, dtype=torch.float64)
            grad, g2bar, lr, correction = randn(t), randn(9).square(), scalar(0.1 / t), scalar(1 - 0.99**t)
            for compiled, eager, args in (
                (floats, on_floats, (randn(0), grad, g2bar, lr, correction)),
                (codes, on_codes, (exponent, randn(0) < 0, grad, g2bar, 20 * lr, correction, key_tensor(mix64(0, t)))),
            ):
                torch.testing.assert_close(
                    compiled(*copy.deepcopy(args)), eager(*copy.deepcopy(args)), rtol=1e-5, atol=1e-7
                )


def make(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3, bias=False))
    return model if kind == "float" else lognet.wrap(model, bits=10, exclude="0.weight" if kind == "mixed" else None)


def layer(kind):
    """Two parameters, because each makes a graph of a step longer; of the mixed ones, the weight is in floats."""
    torch.manual_seed(0)
    model = nn.Linear(6, 8)
    return model if kind == "float" else lognet.wrap(model, bits=10, exclude="weight" if kind == "mixed" else None)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("float", {"lr": 0.05}),
        ("float", {"lr": 0.05, "momentum": 0.9, "foreach": True}),
        ("log", {"lr": torch.tensor(0.05)}),
        ("mixed", {"lr": 0.05, "momentum": 0.9, "maximize": True}),
        ("log", {"lr": 0.05, "rounding": "nearest", "sign_crossing": False, "bias_correction": False}),
        ("mixed", {"lr": 0.05, "affine": 0.0, "momentum": 0.0}),
        ("mixed", {"lr": 0.05, "state_bits": 4}),
    ],
)
def test_a_compiled_step_is_traced_once_and_equals_the_eager_one(backend, kind, kwargs):
    models = [layer(kind) for _ in range(2)]
    optimizers = [Madam(model.parameters(), **copy.deepcopy(kwargs)) for model in models]
    rates = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in optimizers]
    compiled = torch.compile(optimizers[0].step, backend=backend)
    once = isinstance(kwargs["lr"], torch.Tensor) or not torch.__version__.startswith(
        "2.6."
    )  # there a number is a constant
    for t in range(5):
        for p, q in zip(*(model.parameters() for model in models), strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            q.grad = p.grad.clone()
        with kernels.use("reference"), torch._dynamo.config.patch(error_on_recompile=once and t > 0):
            compiled()
        optimizers[1].step()
        for p, q in zip(*(model.parameters() for model in models), strict=True):
            torch.testing.assert_close(p.detach(), q.detach())
            if isinstance(p, LogTensor):
                assert torch.equal(p.exponent, q.exponent)
                assert torch.equal(p.signs, q.signs)
        for rate in rates:
            rate.step()
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        a, b = optimizers[0].state[p], optimizers[1].state[q]
        assert a["step"] == b["step"] == 5
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_other_widths_are_other_constants_not_symbols():
    inputs = []

    def backend(graph, examples):
        inputs.extend(examples)
        return graph.forward

    for bits, state_bits in ((8, 32), (12, 8), (5, 4)):
        p = nn.Parameter(LogTensor.from_float(torch.randn(7, 5), bits))
        q = nn.Parameter(p.detach().clone())
        p.grad, q.grad = torch.ones(7, 5), torch.ones(7, 5)
        with kernels.use("reference"):
            torch.compile(Madam([p], state_bits=state_bits).step, backend=backend)()
        Madam([q], state_bits=state_bits).step()
        assert torch.equal(p.exponent, q.exponent)
    assert len(inputs) > 20
    assert all(isinstance(x, torch.Tensor) for x in inputs)


def test_a_compiled_step_leaves_to_the_kernels_what_they_can_move():
    models = make("mixed"), make("mixed")
    optimizers = [Madam(model.parameters(), lr=0.05) for model in models]
    compiled = torch.compile(optimizers[0].step, backend="aot_eager")
    for t in range(3):
        for p, q in zip(*(model.parameters() for model in models), strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            q.grad = p.grad.clone()
        compiled()
        optimizers[1].step()
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(p.detach(), q.detach())
        torch.testing.assert_close(optimizers[0].state[p], optimizers[1].state[q], rtol=0, atol=0)
    assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0) == (kernels.backend() != "reference")


def test_a_graph_from_before_a_compiled_step_is_noticed():
    model = make("log")
    optimizer = Madam(model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    y = model(torch.randn(2, 6, requires_grad=True)).square().sum()
    torch.compile(optimizer.step, backend="aot_eager")()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("backend", COMPILED)
def test_a_compiled_model_and_a_compiled_step_train_as_in_eager(backend):
    losses = []
    for compiled in (True, False):
        model = make("log")
        optimizer = Madam(model.parameters(), warmup=0)
        forward, step = model, optimizer.step
        if compiled:
            forward = torch.compile(model, fullgraph=True, backend=backend)
            step = torch.compile(optimizer.step, backend=backend)
        seen = []
        for t in range(8):
            x = torch.randn(16, 6, generator=torch.Generator().manual_seed(t))
            with torch._dynamo.config.patch(error_on_recompile=t > 0):
                optimizer.zero_grad()
                loss = (forward(x) - x[:, :3]).square().mean()
                loss.backward()
                step()
            seen.append(loss.item())
        losses.append(seen)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]
