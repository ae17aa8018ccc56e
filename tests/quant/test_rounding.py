import math

import pytest
import torch

from lognet.quant.block_format import BLOCK, BlockFormat
from lognet.quant.random_bits import mix64, uniform
from lognet.quant.rounding import round_to_rungs

DTYPES = [torch.float32, torch.float64]


def table(bits, dtype, spacing, zero=False):
    rungs = torch.arange(2**bits, dtype=torch.float64).mul(-spacing).exp().to(dtype)
    if zero:
        rungs[-1] = 0
    return rungs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("bits", "spacing"), [(2, 1.0), (4, 0.35), (8, 0.0217), (12, 0.001), (16, 8.5e-5)])
def test_a_rung_stays_and_what_lies_between_goes_to_either_side(dtype, zero, bits, spacing):
    rungs = table(bits, dtype, spacing, zero)
    for u in (0.5, 2.0**-24, 1.0):
        assert torch.equal(round_to_rungs(rungs, rungs, spacing, u), torch.arange(2**bits).int())
    middle = (rungs[:-1].double() + rungs[1:].double()).div(2)
    k = torch.arange(2**bits - 1).int()
    assert torch.equal(round_to_rungs((middle * 1.00001).to(dtype)[:1000], rungs, spacing, 0.5), k[:1000])
    assert torch.equal(round_to_rungs((middle * 0.99999).to(dtype)[:1000], rungs, spacing, 0.5), k[:1000] + 1)
    above, below = middle.to(dtype).clamp(rungs[1:], rungs[:-1]), 2.0**-24
    assert torch.equal(round_to_rungs(above, rungs, spacing, below), k)
    assert torch.equal(round_to_rungs(above, rungs, spacing, 1.0), k + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_next_to_a_rung_the_table_decides_and_not_the_logarithm(dtype):
    """Neighbouring floats of every rung: with the smallest u the upper rung of the true bracket is taken."""
    rungs = table(8, dtype, math.log(2) / 32)
    up = torch.nextafter(rungs[1:], torch.ones((), dtype=dtype))
    down = torch.nextafter(rungs[:-1], torch.zeros((), dtype=dtype))
    k = torch.arange(255).int()
    assert torch.equal(round_to_rungs(up, rungs, math.log(2) / 32, 2.0**-60), k)
    assert torch.equal(round_to_rungs(down, rungs, math.log(2) / 32, 1.0), k + 1)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("count", [0, 1, 17, BLOCK, 5 * BLOCK + 3])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_averages_in_blocks_come_back_near(signed, bits, count, scale):
    format = BlockFormat(bits, signed)
    x = torch.randn(count, generator=torch.Generator().manual_seed(0)).mul(scale)
    x = x if signed else x.abs()
    x[3:5] = 0
    codes, scales = format.encode(x, 0.5)
    back = format.decode(codes, scales, count)
    assert codes.element_size() * codes.numel() == (count * bits + 7) // 8
    assert scales.numel() == math.ceil(count / BLOCK)
    assert back.shape == x.shape
    top = scales.repeat_interleave(BLOCK)[:count]
    step = math.exp(format.base_precision) - 1
    lowest = top * format.rungs(x)[format.last_code - 1]
    assert (((back - x).abs() <= 0.5 * step * x.abs() * 1.0001) | ((back - x).abs() <= lowest)).all()
    assert torch.equal(back[3:5], torch.zeros(5)[3:5][: max(0, min(2, count - 3))])
    if not signed:
        assert (back[x > 0] > 0).all()


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_an_average_in_few_bits_follows_its_input(bits):
    """At beta 0.999 it moves by a thousandth a step, less than a rung: only unbiased rounding lets it."""
    n, beta = 64 * BLOCK, 0.999
    format = BlockFormat(bits, signed=False)
    codes, scale = format.encode(torch.ones(n), 0.5)
    value = 1.0
    for t in range(700):
        x = beta * format.decode(codes, scale, n) + (1 - beta) * 0.25
        x[::BLOCK] = 1.0  # what sets the block's scale does not decide how the rest may move
        codes, scale = format.encode(x, uniform(n, mix64(0, t)))
        value = beta * value + (1 - beta) * 0.25
    rest = format.decode(codes, scale, n).view(-1, BLOCK)[:, 1:]
    assert rest.mean().item() == pytest.approx(value, rel=0.03)
    assert value < 0.65
