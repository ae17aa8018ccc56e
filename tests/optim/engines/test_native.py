"""Madam's step in the native kernels against the plain torch one: every bit of weights and state is the same."""

import copy

import pytest
import torch
from oracles.contract import same
from oracles.kernels import BACKENDS
from torch import nn

from lognet import LogTensor
from lognet.optim import Madam
from lognet.optim.engines import native
from lognet.quant import kernels

SIZES = [(), (0,), (1,), (7,), (8,), (15,), (17,), (127,), (128,), (129,), (3, 89)]
backends = pytest.mark.parametrize("backend", BACKENDS)
OPTIONS = {
    "default": {},
    "no momentum": {"momentum": 0.0},
    "frozen": {"sign_crossing": False},
    "nearest": {"rounding": "nearest", "momentum": 0.0},
    "maximize": {"maximize": True, "bias_correction": False},
    "paper": {"affine": 0.0},
    "paper, frozen, nearest": {"affine": 0.0, "sign_crossing": False, "rounding": "nearest", "momentum": 0.0},
    "additive": {"affine": 1.0, "g_bound": float("inf")},
    **{f"{bits} bits": {"state_bits": bits} for bits in (16, 8, 4)},
    **{f"{bits} bits, no momentum": {"state_bits": bits, "momentum": 0.0} for bits in (16, 8, 4)},
}
options = pytest.mark.parametrize("name", OPTIONS)


def train(backend, make, kwargs, steps=3, sizes=SIZES, dtype=torch.float32, masked=False):
    """Weights and state after some steps with gradients over many orders of magnitude, zeros among them."""
    g = torch.Generator().manual_seed(3)
    params = [nn.Parameter(make(torch.randn(size, generator=g) * 0.5)) for size in sizes]
    if masked:
        for p in params:
            p.set_mask_(torch.rand(p.shape, generator=g) < 0.5)
    optimizer = Madam(params, **{"lr": 0.3, "warmup": 2, "seed": -5, **kwargs})
    with kernels.use(backend):
        for _ in range(steps):
            for p in params:
                grad = torch.randn(p.shape, generator=g) * 10 ** torch.randn(p.shape, generator=g)
                p.grad = torch.where(torch.rand(p.shape, generator=g) < 0.2, 0, grad).to(dtype)
            optimizer.step()
    planes = [list(p._storage.planes().values()) if isinstance(p, LogTensor) else [p.detach()] for p in params]
    return [*(t for group in planes for t in group)], [optimizer.state[p] for p in params]


def assert_same(backend, *args, **kwargs):
    accepted = []
    accepts = native.NativeEngine.accepts
    expected, states = train("reference", *args, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native.NativeEngine, "accepts", lambda *a: accepted.append(accepts(*a)) or accepted[-1])
        found, native_states = train(backend, *args, **kwargs)
    assert accepted
    assert all(accepted)  # the torch engine got nothing
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(states, native_states, strict=True):
        assert same(a, b)


def log(bits, base_precision=None):
    return lambda x: LogTensor.from_float(x, bits=bits, base_precision=base_precision, scale=4.0)


@backends
@options
@pytest.mark.parametrize("bits", [8, 10])
def test_every_option_on_log_tensors(backend, name, bits):
    assert_same(backend, log(bits), OPTIONS[name])


@backends
@pytest.mark.parametrize("bits", range(2, 17))
def test_every_width(backend, bits):
    assert_same(backend, log(bits), {}, sizes=[(129,), (300,)])


@backends
@pytest.mark.parametrize(("bits", "spacing"), [(12, 0.001), (8, 0.03), (5, 0.3), (4, 1.0), (16, 2e-5)])
def test_ladders_of_any_spacing(backend, bits, spacing):
    assert_same(backend, log(bits, spacing), {}, sizes=[(129,), (300,)])


@backends
@options
def test_every_option_on_floats(backend, name):
    if OPTIONS[name].get("affine") != 0:  # those take the plain path
        assert_same(backend, lambda x: x, OPTIONS[name])
        assert_same(backend, lambda x: x.bfloat16(), OPTIONS[name], dtype=torch.bfloat16)


@backends
@pytest.mark.parametrize("state_bits", [16, 8, 4])
def test_averages_of_minus_zero(backend, state_bits):
    """Small negative means that round to zero, and then gradients of -0."""
    ends = []
    for name in ("reference", backend):
        w = nn.Parameter(torch.ones(256))
        optimizer = Madam([w], maximize=True, state_bits=state_bits)
        with kernels.use(name):
            for t in range(30):
                w.grad = torch.arange(256.0) % 2 if t < 2 else torch.zeros(256)
                optimizer.step()
        ends.append(optimizer.state[w])
    assert same(*ends)


@backends
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_in_bfloat16_and_masks(backend, masked):
    make = lambda x: LogTensor.from_float(x.bfloat16(), scale=4.0)
    assert_same(backend, make, {}, dtype=torch.bfloat16, masked=masked)


@backends
@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads(backend, threads):
    torch.set_num_threads(threads)
    assert_same(backend, log(9), {"state_bits": 8}, steps=2, sizes=[(70_001,), (3,), (33_000,)])


def swap_memory(params, optimizer):
    for p in params:
        for name in ("exp_avg", "exp_avg_sq", "step"):
            optimizer.state[p][name].share_memory_()


def replace_state(params, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def replace_data(params, optimizer):
    params[1].data = params[1].data.clone() * 0.5


def shorten(params, optimizer):
    """Same address, fewer numbers: what is known of the parameter no longer holds."""
    p = params[1]
    p.data = p.data[:9]
    optimizer.state[p].clear()


CHANGES = {
    "lr": lambda params, optimizer: optimizer.param_groups[0].update(lr=0.05, beta=0.9, g_bound=1.0),
    "no momentum": lambda params, optimizer: optimizer.param_groups[0].update(momentum=0.0),
    "multiplicative": lambda params, optimizer: optimizer.param_groups[0].update(affine=0.0),
    "fewer bits of state": lambda params, optimizer: optimizer.param_groups[0].update(state_bits=8),
    "mask": lambda params, optimizer: params[0].set_mask_(torch.arange(40).view(4, 10) % 3 > 0),
    "codes": lambda params, optimizer: params[0].data.copy_(torch.ones(4, 10)),
    "data": replace_data,
    "shorter data": shorten,
    "shared memory": swap_memory,
    "state dict": replace_state,
    "another parameter": lambda params, optimizer: optimizer.add_param_group(
        {"params": nn.Parameter(torch.ones(3)), "lr": 0.5}
    ),
}


@backends
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_known_of_parameters_is_forgotten_when_they_change(backend, change):
    ends = []
    for name in ("reference", backend):
        g = torch.Generator().manual_seed(1)
        log = LogTensor.from_float(torch.randn(4, 10, generator=g))
        params = [nn.Parameter(log), nn.Parameter(torch.randn(12, generator=g))]
        optimizer = Madam(params, warmup=0)
        with kernels.use(name):
            for t in range(6):
                if t == 3:
                    CHANGES[change](params, optimizer)
                for p in (p for group in optimizer.param_groups for p in group["params"]):
                    p.grad = torch.randn(p.shape, generator=g)
                optimizer.step()
        ends.append([*log._storage.planes().values(), params[0].detach().clone(), params[1].detach().clone()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@backends
@pytest.mark.parametrize("make", [log(8), log(12), lambda x: x], ids=["8 bits", "12 bits", "float"])
def test_strided_gradients_move_as_contiguous_ones(backend, make):
    """The kernels read none of them, not even where they knew the parameter by a contiguous one."""
    values, *grads = torch.randn(4, 20, 30, generator=torch.Generator().manual_seed(5))
    ends = []
    for strided in (False, True):
        p = nn.Parameter(make(values.clone()))
        optimizer = Madam([p], lr=0.1, warmup=0)
        with kernels.use(backend):
            for step, grad in enumerate(grads):
                p.grad = grad.T.contiguous().T if strided and step else grad.clone()
                assert p.grad.is_contiguous() == (not strided or not step)
                optimizer.step()
        ends.append(p.dequantize() if isinstance(p, LogTensor) else p.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
@pytest.mark.parametrize("state_bits", [16, 8, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_few_bits_do_not_care_for_the_size_of_gradients(backend, state_bits, momentum):
    """From 1e-30 to 1e30 the steps are those of gradients of size 1: powers of two change no rounding."""
    ends = []
    for exponent in (0, -100, 100):
        w = nn.Parameter(torch.linspace(-1, 1, 300))
        optimizer = Madam([w], warmup=0, state_bits=state_bits, momentum=momentum)
        g = torch.Generator().manual_seed(1)
        with kernels.use(backend):
            for _ in range(20):
                w.grad = torch.randn(300, generator=g) * 2.0**exponent
                optimizer.step()
        ends.append(w.detach())
    assert (ends[0] != torch.linspace(-1, 1, 300)).all()
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
