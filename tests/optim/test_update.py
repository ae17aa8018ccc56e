import math

import pytest
import torch

from lognet.optim.update import FLOAT_RANGE, direction, running_average, step_codes, step_floats
from lognet.quant.random_bits import random16

DTYPES = [torch.float32, torch.float64]


def tensor(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_direction(dtype):
    g = tensor(2.0, -2.0, 0.0, 1.0, 1e-30, dtype=dtype)
    g2bar = torch.zeros_like(g)
    running_average(g2bar, g * g, beta=0.75)
    torch.testing.assert_close(g2bar[:2], tensor(1.0, 1.0, dtype=dtype))
    assert direction(g, g2bar, 8.0)[:4].tolist() == [2.0, -2.0, 0.0, 2.0]
    assert direction(g, g2bar, 8.0, correction=4.0)[:4].tolist() == [1.0, -1.0, 0.0, 1.0]
    assert direction(g, g2bar, 1.5)[:3].tolist() == [1.5, -1.5, 0.0]
    assert torch.isfinite(direction(g, g2bar, 8.0)).all()  # 1e-30 squared underflows in float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign_crossing", [False, True])
def test_floats_move_multiplicatively_and_are_clamped(dtype, sign_crossing):
    w = tensor(1.0, -1.0, 1.0, -1.0, 2.0, 5.0, 5.0, dtype=dtype)
    r = tensor(1.0, 1.0, -1.0, -1.0, -8.0, 0.0, 0.1, dtype=dtype)
    out = step_floats(w, r, lr=0.1, sigma_star=3.0, sign_crossing=sign_crossing)
    e = math.exp(0.1)
    torch.testing.assert_close(out, tensor(1 / e, -e, e, -1 / e, 3.0, 5.0, 3.0, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_float_signs_cross_only_on_the_way_down_and_only_if_allowed(dtype):
    floor = 1.0 / FLOAT_RANGE
    w = tensor(1.01 * floor, -1.01 * floor, 0.5 * floor, 0.5 * floor, dtype=dtype)
    r = tensor(1.0, -1.0, 1.0, -1.0, dtype=dtype)
    crossed = step_floats(w, r, 0.1, 1.0, sign_crossing=True)
    torch.testing.assert_close(crossed, tensor(-floor, floor, -floor, 0.5 * floor * math.exp(0.1), dtype=dtype))
    frozen = step_floats(w, r, 0.1, 1.0, sign_crossing=False)
    assert torch.equal(frozen.sign(), w.sign())


@pytest.mark.parametrize("sign_crossing", [False, True])
def test_float_zeros_start_where_the_gradient_sends_them(sign_crossing):
    out = step_floats(tensor(0.0, 0.0, 0.0), tensor(1.0, -1.0, 0.0), 0.1, 1.0, sign_crossing)
    start = math.exp(0.1) / FLOAT_RANGE
    torch.testing.assert_close(out, tensor(-start, start, 0.0))


def codes(*k):
    return torch.tensor(k, dtype=torch.int32)


def test_codes_move_by_whole_rungs_and_stay_on_the_ladder():
    k, negative = codes(10, 10, 10, 10, 1, 254, 254), torch.tensor([0, 1, 0, 1, 0, 0, 1]).bool()
    r = tensor(1.0, 1.0, -1.0, -1.0, -8.0, 8.0, -8.0)
    step = step_codes(k, negative, r, 3.4, 255, False, None)
    assert step.exponent.tolist() == [13, 7, 7, 13, 0, 255, 255]
    assert torch.equal(step.negative, negative)
    assert step.counts.tolist() == [7, 0, 0]


def test_codes_cross_below_the_lowest_rung():
    k, negative = codes(254, 254, 255, 254, 0), torch.tensor([0, 1, 0, 0, 0]).bool()
    step = step_codes(k, negative, tensor(2.0, -2.0, 1.0, 1.0, -5.0), 1.0, 255, True, None)
    assert step.exponent.tolist() == [255, 255, 255, 255, 0]
    assert step.negative.tolist() == [True, False, True, False, False]
    assert step.counts.tolist() == [5, 0, 3]


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_rounding_loses_moves_below_half_a_rung_and_counts_them(dtype):
    r = tensor(0.4, -0.4, 0.6, 0.0, dtype=dtype)
    step = step_codes(codes(9, 9, 9, 9), torch.zeros(4).bool(), r, 1.0, 255, False, None)
    assert step.exponent.tolist() == [9, 9, 10, 9]
    assert step.counts.tolist() == [3, 2, 0]


@pytest.mark.parametrize("sign", [1, -1])
def test_vanishing_moves_are_never_made(sign):
    n = 4_000_000  # 2^-24 of so many random numbers would be a fraction of one
    r = torch.full((n,), sign * 1e-26)
    for key in range(3):
        step = step_codes(torch.full((n,), 100).int(), torch.zeros(n).bool(), r, 1.0, 255, True, random16(n, key))
        assert (step.exponent == 100).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("move", [0.03, -0.7, 12.25])
def test_stochastic_moves_are_unbiased(dtype, move):
    n = 200_000
    r = torch.full((n,), move, dtype=dtype)
    step = step_codes(torch.full((n,), 100).int(), torch.zeros(n).bool(), r, 1.0, 255, True, random16(n, 5))
    moves = step.exponent - 100
    assert set(moves.tolist()) == {math.floor(move), math.floor(move) + 1}
    p = move - math.floor(move)
    assert moves.double().mean().item() == pytest.approx(move, abs=5 * math.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("rungs", [1e8, 1e10, 1e30])
def test_moves_beyond_any_integer_end_at_the_end_of_the_ladder(rungs):
    k, negative = codes(10, 10, 10, 10), torch.tensor([0, 1, 0, 1]).bool()
    r = tensor(8.0, 8.0, -8.0, -8.0)
    step = step_codes(k, negative, r, rungs, 255, False, None)
    assert step.exponent.tolist() == [255, 0, 0, 255]
    assert torch.equal(step.negative, negative)
    crossed = step_codes(k, negative, r, rungs, 255, True, None)
    assert crossed.exponent.tolist() == [255, 0, 0, 255]
    assert crossed.negative.tolist() == [True, True, False, False]
