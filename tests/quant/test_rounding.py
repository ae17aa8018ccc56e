import math

import pytest
import torch

from lognet.quant.quantizers import round_to_rungs

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
    for u in (None, torch.full_like(rungs, 2.0**-24), torch.ones_like(rungs)):
        assert torch.equal(round_to_rungs(rungs, rungs, spacing, u), torch.arange(2**bits).int())
    middle = (rungs[:-1].double() + rungs[1:].double()).div(2)
    k = torch.arange(2**bits - 1).int()
    assert torch.equal(round_to_rungs((middle * 1.00001).to(dtype)[:1000], rungs, spacing), k[:1000])
    assert torch.equal(round_to_rungs((middle * 0.99999).to(dtype)[:1000], rungs, spacing), k[:1000] + 1)
    above = middle.to(dtype).clamp(rungs[1:], rungs[:-1])
    assert torch.equal(round_to_rungs(above, rungs, spacing, torch.full_like(above, 2.0**-24)), k)
    assert torch.equal(round_to_rungs(above, rungs, spacing, torch.ones_like(above)), k + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_next_to_a_rung_the_table_decides_and_not_the_logarithm(dtype):
    """Neighbouring floats of every rung: with the smallest u the upper rung of the true bracket is taken."""
    rungs = table(8, dtype, math.log(2) / 32)
    up = torch.nextafter(rungs[1:], torch.ones((), dtype=dtype))
    down = torch.nextafter(rungs[:-1], torch.zeros((), dtype=dtype))
    k = torch.arange(255).int()
    assert torch.equal(round_to_rungs(up, rungs, math.log(2) / 32, torch.full_like(up, 2.0**-60)), k)
    assert torch.equal(round_to_rungs(down, rungs, math.log(2) / 32, torch.ones_like(down)), k + 1)
