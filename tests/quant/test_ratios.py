"""Multiplying codes: the rungs on both sides of the product, drawn so that their mean is the product."""

import math

import pytest
import torch

from lognet.quant import LogFormat
from lognet.quant.random_bits import random16
from lognet.quant.ratios import inverse_rungs, next_rung, rungs_for_ratio, spacing

SPACINGS = [math.log(2) * 2.0 ** (3 - bits) for bits in (4, 6, 8, 10, 12, 16)] + [0.001, 0.013, 0.3]


@pytest.mark.parametrize("step", [*SPACINGS, 2.4e-7, 1.4])
def test_the_ratio_one_is_no_move_whatever_is_drawn(step):
    every = torch.arange(2**16, dtype=torch.int32)
    assert (rungs_for_ratio(torch.ones(2**16), step, every) == 0).all()


@pytest.mark.parametrize("step", SPACINGS)
@pytest.mark.parametrize("ratio", [0.9999, 0.99, 0.8, 0.5, 0.01, 1.0001, 1.01, 1.3, 2.0, 7.7])
def test_the_mean_is_the_ratio(step, ratio):
    """Over all that can be drawn: to a 4,000th of the move, and what 16 bits resolve, or fewer where rungs are very close."""
    every = torch.arange(2**16, dtype=torch.int32)
    down = rungs_for_ratio(torch.full((2**16,), ratio), step, every)
    exact = -math.log(ratio) / step
    assert down.max() - down.min() <= 1
    assert (down - exact).abs().max() <= 1 + abs(exact) / 4000
    found = (down.double() * -step).exp().mean().item()
    coarse = 0.5 * step * 2.0 ** -spacing(step).shift + 2e-4 * step * (step > 0.2)
    assert found == pytest.approx(ratio, abs=abs(ratio - 1) / 4000 + ratio * (coarse + 2.0**-16 * step))


@pytest.mark.parametrize("step", SPACINGS)
def test_moves_grow_with_the_ratio(step):
    ratios = torch.linspace(0, 4, 100_001)
    down = rungs_for_ratio(ratios, step)
    assert (down.diff() <= 0).all()
    assert down[0] * step > 60  # beyond any ladder that float32 holds, and no overflow


@pytest.mark.parametrize("step", SPACINGS)
def test_small_moves_up_and_down_are_alike(step):
    """What is too long on one side is too long on the other: nothing decays."""
    size, n = 0.3 * step, 2**16
    every = torch.arange(n, dtype=torch.int32)
    up = (rungs_for_ratio(torch.full((n,), 1 + size), step, every).double() * -step).exp().mean().item() - 1
    down = 1 - (rungs_for_ratio(torch.full((n,), 1 - size), step, every).double() * -step).exp().mean().item()
    assert up == pytest.approx(down, abs=size * 1e-3 + step * 2.0 ** -spacing(step).shift + 3e-4 * step * (step > 0.2))


@pytest.mark.parametrize("step", [0.3, 0.0217])
def test_nearest_is_nearest_in_value(step):
    for k in range(5):
        middle = (math.exp(-k * step) + math.exp(-(k + 1) * step)) / 2
        ratios = torch.tensor([middle * 1.003, middle * 0.997])
        assert rungs_for_ratio(ratios, step).tolist() == [k, k + 1]


@pytest.mark.parametrize(("bits", "step"), [(2, None), (4, 0.3), (8, None), (10, None), (12, 0.001), (16, None)])
def test_the_table_holds_the_rung_below_the_last_divided_by_each(bits, step):
    ladder = LogFormat(bits, step)
    k = torch.arange(2**bits, dtype=torch.float64)
    expected = ((k - 2**bits) * ladder.base_precision).exp()
    torch.testing.assert_close(inverse_rungs(ladder, torch.empty(0)).double(), expected, rtol=2e-7, atol=0)
    assert next_rung(ladder) == pytest.approx(math.exp(-(2**bits) * ladder.base_precision), rel=1e-7)


def test_halves_of_a_stream_round_without_bias():
    down = rungs_for_ratio(torch.full((400_000,), 0.97), 0.0217, random16(400_000, 3))
    mean = (down.double() * -0.0217).exp()
    assert mean.mean().item() == pytest.approx(0.97, abs=5 * mean.std().item() / 400_000**0.5 + 6e-5)
