"""Averages in few bits: codes in units of a block's scale, rounded without bias."""

import math

import pytest
import torch

from lognet.quant.block_format import BLOCK, BlockFormat
from lognet.quant.random_bits import mix64, random16

BITS = [4, 8, 16]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [0, 1, 17, BLOCK, 5 * BLOCK + 3])
def test_numbers_come_back_near(signed, bits, count):
    format = BlockFormat(bits, signed)
    x = torch.rand(count, generator=torch.Generator().manual_seed(0)) ** 4
    x = x * (torch.arange(count) % 2 * 2 - 1) if signed else x
    x[3:5] = 0
    x[:1] = 1
    codes = format.encode(x)
    back = format.levels(codes, count)
    assert codes.element_size() * codes.numel() == (count * bits + 7) // 8
    step = math.exp(format.base_precision) - 1
    assert (((back - x).abs() <= (0.51 * step + 1e-4) * x.abs()) | ((back - x).abs() <= format.lowest)).all()
    assert (back[:1] == 1).all()
    assert (back[3:5] == (0 if signed else torch.tensor(format.lowest))).all()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [0, 1, 2, 129])
def test_zeros_are_codes_of_zero(signed, bits, count):
    format = BlockFormat(bits, signed)
    codes, scale = format.zeros(count, torch.device("cpu"))
    assert torch.equal(format.levels(codes, count), format.levels(format.encode(torch.zeros(count)), count))
    assert codes.dtype == format.encode(torch.zeros(count)).dtype
    assert scale.tolist() == [0.0] * math.ceil(count / BLOCK)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
def test_levels_stay_whatever_is_drawn(bits, signed):
    format = BlockFormat(bits, signed)
    levels = format.table(torch.empty(0))[: format.last_rung + 1]
    for drawn in (0, 2**8, 2**15, 2**16 - 2**8, 2**16 - 1):
        k = format.encode(levels, torch.full(levels.shape, drawn, dtype=torch.int32))
        torch.testing.assert_close(
            format.levels(k, len(levels)), levels, rtol=1.01 * math.expm1(format.base_precision), atol=0
        )
        if drawn in (1, 2**15):  # next to a rung, the polynomial may be a hair on its other side
            assert torch.equal(format.levels(k, len(levels)), levels) or bits == 16


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [1.0, 0.83, 0.0307, 0.6, 0.3, 0.002])
def test_rounding_has_no_bias(bits, signed, value):
    n, format = 400_000, BlockFormat(bits, signed)
    for sign in (1, -1)[: 1 + signed]:
        back = format.levels(format.encode(torch.full((n,), sign * value), random16(n, 3)), n)
        assert len(back.unique()) <= 2
        exact = sign * value if value > format.lowest or signed else format.lowest
        slack = (
            1e-3 * (1 if bits == 4 else 0.2) * abs(exact)
        )  # of the logarithm, and of the curve for rungs so far apart
        assert back.mean().item() == pytest.approx(exact, abs=5 * back.double().std().item() / math.sqrt(n) + slack)


@pytest.mark.parametrize("bits", BITS)
def test_an_average_follows_its_input(bits):
    """At beta 0.999 it moves by a thousandth a step, less than a rung: only unbiased rounding lets it."""
    n, beta = 64 * BLOCK, 0.999
    format = BlockFormat(bits, signed=False)
    codes, value = format.encode(torch.ones(n)), 1.0
    for t in range(700):
        x = beta * format.levels(codes, n) + (1 - beta) * 0.25
        codes = format.encode(x, random16(n, mix64(0, t)))
        value = beta * value + (1 - beta) * 0.25
    assert format.levels(codes, n).mean().item() == pytest.approx(value, rel=0.05)
    assert value < 0.65
