import math

import pytest
import torch
from oracles.ladder import float32, nearest_rung, rung

from lognet import LogFormat, LogTensor
from lognet.quant import default_base_precision
from lognet.quant.log_format import PIECE, ZERO_SIGMA, largest_magnitude, typical_magnitude
from lognet.quant.random_bits import drawn, random16

WIDTHS = range(2, 17)


def test_paper_range_is_sixty():
    assert round(LogFormat(12, base_precision=0.001).range, 1) == 60.0


@pytest.mark.parametrize(
    ("bits", "octaves"),
    [(2, 4), (3, 14 / 3), (4, 5), (6, 5.25), (7, 8 - 1 / 16), (8, 8 - 1 / 32), (10, 8 - 1 / 128), (12, 8 - 1 / 512)],
)
def test_the_span_of_default_ladders(bits, octaves):
    assert math.log2(LogFormat(bits).range) == pytest.approx(octaves, rel=1e-12)
    assert LogFormat(bits).base_precision == default_base_precision(bits)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("base_precision", [None, 0.0003])
def test_every_code_decodes_to_the_paper_and_encodes_to_itself(bits, dtype, base_precision):
    ladder, scale = LogFormat(bits, base_precision), torch.tensor(1.7)
    k = torch.arange(2**bits)
    for negative in (False, True):
        values = ladder.decode(k, torch.full_like(k, negative, dtype=torch.bool), scale, dtype)
        expected = torch.tensor(
            [rung(i, float(scale), ladder.base_precision) for i in range(2**bits)], dtype=torch.float64
        )
        tolerance = 2e-15 if dtype == torch.float64 else 1.3e-7  # two roundings
        torch.testing.assert_close(values.double(), -expected if negative else expected, rtol=tolerance, atol=0)
        for rounding in ("nearest", "stochastic"):
            assert torch.equal(
                ladder.encode(values.abs(), scale, drawn(rounding, len(values), key=3)), k.to(torch.int32)
            )


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_midpoint_between_rungs_is_in_log_space(bits, dtype):
    ladder, scale = LogFormat(bits), torch.tensor(0.9)
    k = torch.arange(2**bits - 1)
    value = lambda position: (0.9 * torch.exp(-position * ladder.base_precision)).to(dtype)
    middle = k.double() + 0.5
    aside = 0.01  # of a rung; the float32 grid is finer than that at every width
    assert torch.equal(ladder.encode(value(middle - aside), scale), k.to(torch.int32))
    assert torch.equal(ladder.encode(value(middle + aside), scale), (k + 1).to(torch.int32))


def test_encode_agrees_with_trying_every_rung():
    generator = torch.Generator().manual_seed(0)
    x = torch.exp(torch.randn(300, generator=generator, dtype=torch.float64) * 2)
    for bits, eta_0 in [(2, 1.0), (4, 0.3), (5, None), (8, 0.01), (8, None)]:
        ladder = LogFormat(bits, eta_0)
        scale = float32(1.3)
        expected = [nearest_rung(float(v), scale, ladder.base_precision, bits) for v in x]
        assert ladder.encode(x, torch.tensor(scale)).tolist() == expected


def test_saturation_at_both_ends():
    ladder, scale = LogFormat(8), torch.tensor(1.0)
    x = torch.tensor([3.0, 1e30, 1.0, 1e-5, 0.0])
    assert ladder.encode(x, scale).tolist() == [0, 0, 0, 255, 255]
    assert ladder.encode(x, scale, random16(len(x), key=0)).tolist() == [0, 0, 0, 255, 255]


@pytest.mark.parametrize("position", [0.1, 3.5, 100.93])
def test_stochastic_rounding_is_unbiased_and_takes_only_the_two_neighbours(position):
    ladder, n = LogFormat(8), 200_000
    x = torch.full((n,), math.exp(-position * ladder.base_precision), dtype=torch.float64)
    k = ladder.encode(x, torch.tensor(1.0), random16(n, key=11))
    assert set(k.tolist()) == {math.floor(position), math.floor(position) + 1}
    p = position - math.floor(position)
    assert k.double().mean().item() == pytest.approx(position, abs=5 * math.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"bits": 1}, ValueError, "bits must be from 2 to 16, got 1"),
        ({"bits": 17}, ValueError, "bits must be from 2 to 16, got 17"),
        ({"bits": 8.0}, TypeError, "bits must be an int"),
        ({"bits": True}, TypeError, "bits must be an int"),
        ({"bits": "8"}, TypeError, "bits must be an int"),
        ({"bits": 8, "base_precision": 0}, ValueError, "base_precision must be a positive finite number, got 0"),
        ({"bits": 8, "base_precision": -0.1}, ValueError, "base_precision"),
        ({"bits": 8, "base_precision": math.nan}, ValueError, "base_precision"),
        ({"bits": 8, "base_precision": math.inf}, ValueError, "base_precision"),
        ({"bits": 8, "base_precision": "x"}, TypeError, "base_precision"),
        ({"bits": 16, "base_precision": 2e-7}, ValueError, "base_precision must be at least 2.4e-07, got 2e-07"),
        ({"bits": 12, "base_precision": 0.1}, ValueError, "use base_precision <="),
    ],
)
def test_bad_ladders(arguments, error, words):
    with pytest.raises(error, match=words):
        LogFormat(**arguments)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-37, 1e39])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match="scale must"):
        LogFormat(8).check_scale(scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_typical_magnitude(dtype):
    assert typical_magnitude(torch.tensor([3.0, -4.0], dtype=dtype)) == pytest.approx(math.sqrt(12.5))
    assert typical_magnitude(torch.zeros(3, dtype=dtype)) == ZERO_SIGMA
    assert typical_magnitude(torch.zeros(0, dtype=dtype)) == ZERO_SIGMA
    assert typical_magnitude(torch.full((9,), 3e4, dtype=dtype)) == pytest.approx(
        3e4, rel=4e-3
    )  # squares overflow half


def test_sizes_are_found_in_pieces():
    x = torch.cat([torch.ones(PIECE), torch.tensor([-7.0, 3.0])])
    assert largest_magnitude(x) == largest_magnitude(LogTensor.from_float(x)) == 7
    assert math.isclose(typical_magnitude(x), math.sqrt((PIECE + 58) / (PIECE + 2)), rel_tol=1e-12)
    assert math.isnan(largest_magnitude(torch.cat([x, torch.tensor([math.nan])])))
    with pytest.raises(ValueError, match="1 of 1048579 are NaN"):
        LogTensor.from_float(torch.cat([x, torch.tensor([math.nan])]))
