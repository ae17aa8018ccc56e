"""The affine step against its oracle, and what it promises: no bias on the ladder, bounds, signs."""

import math

import pytest
import torch
from oracles.affine import Oracle, crosses, lift, places
from torch import nn

from lognet import LogTensor, wrap
from lognet.optim import Madam
from lognet.quant import LogFormat
from lognet.quant.random_bits import mix64, random16

DTYPES = [torch.float32, torch.float64]


def gradients(shape, dtype, steps=40):
    """Over four orders of magnitude, with exact zeros among them."""
    g = torch.Generator().manual_seed(7)
    for _ in range(steps):
        grad = torch.randn(shape, generator=g, dtype=torch.float64) * 10 ** torch.randn(shape, generator=g).double()
        grad[torch.rand(shape, generator=g) < 0.2] = 0
        yield grad.to(dtype)


def weights(shape, sigma=0.5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * sigma


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("affine", "momentum", "sigma"), [(0.5, 0.8, 0.5), (1.0, 0.0, 0.05), (0.2, 0.9, 2.0)])
def test_float_parameters_follow_the_oracle(dtype, affine, momentum, sigma):
    shape = (13, 5)
    w = nn.Parameter(weights(shape, sigma).to(dtype))
    optimizer = Madam([w], lr=0.3, p_scale=1.5, affine=affine, momentum=momentum, warmup=15)
    rms = w.detach().double().square().mean().sqrt().item()
    oracles = [Oracle(0.3, 3.0, 0.99, momentum, affine, rms, 15) for _ in range(w.numel())]
    expected = w.detach().double().flatten().tolist()
    for g in gradients(shape, dtype):
        w.grad = g
        optimizer.step()
        grads = g.double().flatten().tolist()
        expected = [o.step_float(x, gi, 1.5 * rms) for o, x, gi in zip(oracles, expected, grads, strict=True)]
        rtol, atol = (1e-12, 1e-14) if dtype == torch.float64 else (1e-4, 1e-4 * rms)
        torch.testing.assert_close(
            w.detach().double().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=rtol, atol=atol
        )


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize(("bits", "base_precision"), [(12, None), (8, None), (8, 0.013), (6, None), (4, 0.3)])
def test_log_tensors_follow_the_oracle_code_for_code(bits, base_precision, rounding):
    shape = (13, 5)
    w = nn.Parameter(LogTensor.from_float(weights(shape), bits=bits, base_precision=base_precision, scale=2.0))
    optimizer = Madam([w], lr=0.3, rounding=rounding, seed=5, warmup=15)
    rms = w.detach().double().square().mean().sqrt().item()
    oracles = [Oracle(0.3, 3.0, 0.99, 0.8, 0.5, rms, 15) for _ in range(w.numel())]
    last, loose = 2**bits - 1, 0
    lowest = 2.0 * math.exp(-last * w.base_precision)
    for t, g in enumerate(gradients(shape, torch.float64), 1):
        before = w.detach().double().flatten().tolist()
        drawn = random16(w.numel(), mix64(5, t, 0)).tolist() if rounding == "stochastic" else [2**15] * 65
        codes = list(zip(w.exponent.flatten().tolist(), w.signs.flatten().tolist(), strict=True))
        w.grad = g
        optimizer.step()
        moved = list(zip(w.exponent.flatten().tolist(), w.signs.flatten().tolist(), strict=True))
        for i, gi in enumerate(g.flatten().tolist()):
            target = oracles[i].target(before[i], gi)
            if target == before[i]:
                assert moved[i] == codes[i]
                continue
            (old, side), (k, new_side) = codes[i], moved[i]
            place = places(target, 2.0, w.base_precision)
            off = abs(place - old) / 4000 + 0.01  # the logarithm is a polynomial, and float32
            exact = place + lift(drawn[i] / 2**16, w.base_precision)
            low, high = (math.floor(min(max(exact + x, 0), last)) for x in (-off, off))
            assert low <= k <= high
            loose += low != high
            margin = 1e-5 * (abs(target) + lowest)
            expected = {
                crosses(target + x, side, drawn[i] if rounding == "stochastic" else 0, lowest)
                for x in (-margin, margin)
            }
            assert (new_side != side) in expected
    assert loose < 0.1 * 40 * 65


@pytest.mark.parametrize("wrapped", [False, True])
def test_frozen_signs_stop_on_the_lowest_rung(wrapped):
    value = torch.tensor([0.02, -0.02, 0.5, 0.004])
    w = nn.Parameter(LogTensor.from_float(value, scale=1.0) if wrapped else value.clone())
    optimizer = Madam([w], lr=0.5, p_scale=1.0, sign_crossing=False, warmup=0)
    for _ in range(50):
        w.grad = w.detach().sign()
        optimizer.step()
    lowest = 1 / LogFormat(8).range if wrapped else value.square().mean().sqrt().item() / 256
    torch.testing.assert_close(w.detach(), value.sign() * torch.tensor(lowest), rtol=1e-4, atol=0)


def test_a_ladder_crosses_zero_without_bias():
    """Down at a constant rate from one side to the other, a weight passes where there is no rung, and loses no time."""
    n, steps = 20_000, 30
    w = nn.Parameter(LogTensor.from_float(torch.full((n,), 0.1), bits=4, scale=1.0))
    f = nn.Parameter(torch.full((n,), w[0].item()))
    for p in (w, f):
        optimizer = Madam([p], lr=0.2, momentum=0.0, affine=1.0, warmup=0)
        for _ in range(steps):
            p.grad = torch.ones(n)
            optimizer.step()
    assert f.max() < 0
    spread = w.detach().std().item() / math.sqrt(n)
    assert w.detach().mean().item() == pytest.approx(f.mean().item(), abs=5 * spread)


def test_gains_and_embeddings_step_as_if_they_were_small():
    moves = []
    for sigma in (0.05, 0.2, 1.0, 5.0):
        w = nn.Parameter(torch.full((4,), sigma))
        w.grad = torch.ones(4)
        Madam([w], lr=0.1, momentum=0.0, warmup=0).step()
        moves.append((sigma - w[0]).item())
    assert moves == pytest.approx([0.005, 0.02, 0.02, 0.02], rel=1e-4)


@pytest.mark.parametrize(("bits", "error"), [(4, 0.25), (8, 0.1), (12, 0.1)])
def test_wrapped_zeros_step_like_float_ones(bits, error):
    """A fresh bias shows no magnitude: its sigma comes from the scale that `wrap` gave it. With 4 bits there is nothing
    between +-0.04, and larger weights take larger steps."""
    float_bias, model = nn.Parameter(torch.zeros(500)), nn.Linear(3, 500)
    nn.init.zeros_(model.bias)
    wrapped_bias = wrap(model, bits=bits).bias
    for p in (float_bias, wrapped_bias):
        optimizer = Madam([p], lr=0.1, warmup=0)
        for _ in range(20):
            p.grad = torch.ones(500)
            optimizer.step()
        assert optimizer.state[p]["sigma"].item() == pytest.approx(0.1, rel=1e-6)
    assert wrapped_bias.mean().item() == pytest.approx(float_bias.mean().item(), rel=error)


@pytest.mark.parametrize("state_bits", [16, 8, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_averages_in_few_bits_steer_as_those_in_32(state_bits, wrapped):
    torch.manual_seed(0)
    start = torch.randn(64, 32) * 0.1
    goal = torch.randn(64, 32) * 0.1

    def distance(bits):
        w = nn.Parameter(LogTensor.from_float(start, scale=1.0) if wrapped else start.clone())
        optimizer = Madam([w], lr=0.1, warmup=0, state_bits=bits)
        g = torch.Generator().manual_seed(2)
        for _ in range(100):
            w.grad = (w.detach() - goal) + 0.1 * torch.randn(64, 32, generator=g)
            optimizer.step()
        return (w.detach() - goal).square().mean().sqrt().item()

    assert distance(state_bits) < 1.25 * distance(32) < 0.1


@pytest.mark.parametrize("state_bits", [16, 8, 4])
def test_weights_without_gradients_stay_whatever_their_neighbours_in_a_block_do(state_bits):
    w = nn.Parameter(torch.ones(256))
    optimizer = Madam([w], lr=0.1, warmup=0, state_bits=state_bits)
    for _ in range(20):
        w.grad = torch.randn(256)
        w.grad[::2] = 0
        optimizer.step()
    assert torch.equal(w[::2], torch.ones(128))
    assert (w[1::2] != 1).all()
