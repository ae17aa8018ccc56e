"""The cost model: its counts against counted operations, its choices against the papers' crossovers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lognet.nn import CostModel, PHMLinear, calibrate, cost_model, kronecker_linear, set_cost_model
from lognet.nn.kronecker.cost import Shape, choose


@pytest.mark.parametrize("shape", [Shape(3, 4, 5, 6, 7), Shape(2, 8, 1, 1, 9), Shape(1, 2, 9, 8, 2)])
@pytest.mark.parametrize("inputs", [1, 10])
def test_counts_are_those_of_the_operations(shape, inputs):
    rank, a, b, c, d = shape
    factors, x = (torch.randn(rank, a, b), torch.randn(rank, c, d)), torch.randn(inputs, b * d)
    with FlopCounterMode(display=False) as contracted:
        kronecker_linear(x, factors, impl="contract")
    assert contracted.get_total_flops() == 2 * inputs * min(shape.b_first, shape.a_first)[0]
    with FlopCounterMode(display=False) as built:
        kronecker_linear(x, factors, impl="materialize")
    assert built.get_total_flops() == 2 * (shape.build_macs + inputs * shape.entries)


def test_formulas_of_the_spec():
    shape = Shape(5, 4, 6, 3, 7)  # A (n1, m1) = (4, 6), B (n2, m2) = (3, 7)
    assert min(shape.b_first, shape.a_first)[0] == 5 * min(3 * 6 * (7 + 4), 4 * 7 * (6 + 3))
    n, d, k = 16, 1024, 1024
    phm = Shape(n, n, n, k // n, d // n)
    assert phm.build_macs + 7 * phm.entries == k * d * (7 + n)
    assert min(phm.b_first, phm.a_first)[0] == d * k + n**2 * min(d, k)


def test_choices():
    phm = Shape(16, 16, 16, 64, 64)
    assert [choose("auto", phm, inputs) for inputs in (1, 16, 256, 4096)] == ["contract"] * 2 + ["materialize"] * 2
    output = Shape(256, 251, 16, 128, 32)  # a tied output layer, 32128 x 512 at rank 256
    assert choose("auto", output, 8) == "contract"
    assert choose("auto", output, 100) == "materialize"
    kronecker = Shape(4, 32, 32, 32, 32)
    assert choose("auto", kronecker, 100_000) == "contract"
    assert choose("auto", Shape(40, 32, 32, 32, 32), 100_000) == "materialize"


def test_a_user_overrides_it():
    layer = PHMLinear(64, 64, n=4)
    x = torch.randn(2, 64)
    auto = layer(x)
    before = set_cost_model(CostModel(call=1.0, write=1e9))
    try:
        assert cost_model().call == 1.0
        assert choose("auto", Shape(4, 4, 4, 16, 16), 10**6) == "materialize"
        torch.testing.assert_close(layer(x), auto, rtol=1e-4, atol=1e-5)
    finally:
        set_cost_model(before)
    for impl in ("materialize", "contract"):
        layer.impl = impl
        torch.testing.assert_close(layer(x), auto, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="impl must be one of"):
        choose("best", Shape(1, 1, 1, 1, 1), 1)


def test_calibration():
    measured = calibrate(size=128, repeats=2)
    assert all(0 < getattr(measured, name) < 1e-2 for name in ("mac", "move", "write", "call"))
