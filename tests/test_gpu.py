"""On a CUDA device: the same codes as on the CPU, in eager and compiled by Inductor to Triton. Skipped where there is none."""

import copy
import io

import pytest
import torch
from torch import nn

import lognet
from lognet import LogTensor
from lognet.optim import Madam

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    pytest.mark.timeout(600),
]
DEVICE = "cuda"
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def same_codes(a, b):
    return all(torch.equal(x.cpu(), y.cpu()) for x, y in zip(a.codes(), b.codes(), strict=True))


def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("bits", range(2, 17))
def test_floats_get_the_codes_and_codes_the_values_that_they_have_on_the_cpu(bits, rounding, dtype):
    x = torch.randn(70_001, generator=generator()).to(dtype)
    x[::7] = 0
    a = LogTensor.from_float(x, bits, rounding=rounding, generator=generator())
    b = LogTensor.from_float(x.to(DEVICE), bits, rounding=rounding, generator=generator())
    assert same_codes(a, b)
    assert torch.equal(a.dequantize(), b.dequantize().cpu())
    assert torch.equal(a.to(DEVICE)[8:99].dequantize().cpu(), a[8:99].dequantize())


OPTIONS = [
    {},
    {"momentum": 0.0},
    {"state_bits": 16},
    {"state_bits": 8},
    {"state_bits": 4},
    {"affine": 0.0},
    {"rounding": "nearest"},
    {"sign_crossing": False},
    {"foreach": True},
    {"maximize": True, "bias_correction": False},
]
SHAPES = [(37, 61), (1,), (300,), (64, 33, 3)]


def parameters(bits, device, dtype=torch.float32):
    values = [torch.randn(shape, generator=generator()).to(dtype) * 0.1 for shape in SHAPES]
    return [nn.Parameter((v if bits is None else LogTensor.from_float(v, bits)).to(device)) for v in values]


def give_gradients(seed, *models):
    draw = torch.Generator().manual_seed(seed)
    for params in zip(*models, strict=True):
        grad = 1e-2 * torch.randn(params[0].shape, generator=draw)
        for p in params:
            p.grad = grad.to(p.device, p.dtype)


def assert_same(ours, theirs, exactly):
    """Codes and floats; where each may round as it likes, one code in a thousand may be another."""
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, LogTensor):
            different = sum(int((x.cpu() != y.cpu()).sum()) for x, y in zip(a.codes(), b.codes(), strict=True))
            assert different <= (0 if exactly else a.numel() // 1000)
        else:
            slack = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-5, "atol": 1e-6}
            torch.testing.assert_close(a.detach().cpu(), b.detach().cpu(), **slack)


@pytest.mark.parametrize("bits", [None, 4, 8, 10, 16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_step_moves_the_codes_that_it_moves_on_the_cpu(options, bits):
    ours, theirs = parameters(bits, DEVICE), parameters(bits, "cpu")
    steps = [Madam(params, **{"warmup": 2, **options}).step for params in (ours, theirs)]
    for t in range(12):
        give_gradients(t, ours, theirs)
        for step in steps:
            step()
    exactly = bits is not None or options.get("affine") != 0.0  # the exponential is each library's own
    assert_same(ours, theirs, exactly)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("bits", [None, 8, 12])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.0}, {"state_bits": 8}], ids=str)
def test_a_compiled_step_moves_the_codes_that_eager_moves(options, bits):
    torch._dynamo.reset()
    ours, theirs = parameters(bits, DEVICE), parameters(bits, DEVICE)
    compiled = torch.compile(Madam(ours, **{"warmup": 2, **options}).step)
    eager = Madam(theirs, **{"warmup": 2, **options}).step
    for t in range(5):
        give_gradients(t, ours, theirs)
        with torch._dynamo.config.patch(error_on_recompile=t > 0):
            compiled()
        eager()
    assert_same(ours, theirs, exactly=False)


def test_a_gradient_with_nan_leaves_its_parameter_alone():
    params = parameters(8, DEVICE)
    before = [p.detach().clone() for p in params]
    give_gradients(0, params)
    params[0].grad[3, 5] = torch.nan
    params[3].grad[0, 0, 0] = -torch.inf
    with pytest.warns(UserWarning, match="its step is skipped"):
        Madam(params, warmup=0).step()
    assert [same_codes(p, b) for p, b in zip(params, before, strict=True)] == [True, False, False, True]


def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10)
    return lognet.wrap(nn.Sequential(*layers), bits=8)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_a_network_learns_and_goes_on_from_a_checkpoint(autocast):
    model = net().to(DEVICE)
    optimizer, scaler = Madam(model.parameters(), warmup=10), torch.amp.GradScaler(DEVICE, enabled=autocast is not None)
    x, y = torch.randn(32, 3, 8, 8, device=DEVICE), torch.randint(0, 10, (32,), device=DEVICE)

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, autocast, enabled=autocast is not None):
                loss = nn.functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss.item()

    assert train(model, optimizer, 60) < 0.2
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, map_location="cpu", weights_only=False)
    other = net().to(DEVICE)
    other.load_state_dict(saved["model"])
    theirs = Madam(other.parameters(), warmup=10)
    theirs.load_state_dict(saved["optimizer"])
    assert all(state["sigma"].device.type == "cpu" for state in theirs.state.values())
    torch.testing.assert_close(copy.deepcopy(other).eval()(x), model.eval()(x))
    assert train(other, theirs, 5) < 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("bits", [4, 8, 12])
def test_one_graph_forward_and_backward_equal_to_eager(bits):
    torch._dynamo.reset()
    model = lognet.wrap(nn.Sequential(nn.Linear(64, 48), nn.LayerNorm(48), nn.Tanh(), nn.Linear(48, 3)), bits=bits).to(
        DEVICE
    )
    x, results = torch.randn(5, 64, device=DEVICE), []
    for forward in (torch.compile(model, fullgraph=True), model):
        model.zero_grad()
        out = forward(x)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("bits", [3, 8, 11, 16])
def test_compiled_decoding_is_exact(bits):
    torch._dynamo.reset()
    w = LogTensor.from_float(torch.randn(1001, 7), bits).to(DEVICE)
    assert torch.equal(torch.compile(lambda w: w.dequantize(), fullgraph=True)(w), w.dequantize())
