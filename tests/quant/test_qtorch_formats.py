"""The formats of qtorch: equal to qtorch's own functions, and without its traps.

The first of these tests compiles qtorch's C++ where that was never done (half a minute); the others share it.
"""

import copy
import math
import pickle
import sys

import pytest
import torch

from lognet.quant import BlockQuantizer, FixedQuantizer, FloatQuantizer
from lognet.quant.qtorch_formats import qtorch_functions

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FORMATS = [
    *(FixedQuantizer(bits) for bits in (2, 4, 8, 12)),
    *(FloatQuantizer(*split) for split in ((4, 3), (5, 2), (3, 1), (2, 3), (8, 7))),
    *(BlockQuantizer(bits, dim) for bits in (3, 8) for dim in (0, 1, None)),
]
identified = pytest.mark.parametrize("quantizer", FORMATS, ids=str)


@pytest.fixture(scope="module")
def qtorch():
    return qtorch_functions()


def stochastic(quantizer, seed=0):
    return type(quantizer)(**{**vars(quantizer), "rounding": "stochastic", "seed": seed})


def own(qtorch, quantizer, x):
    """qtorch's own function; x within the unit range, with 1 in it."""
    if isinstance(quantizer, FixedQuantizer):
        return qtorch.fixed_point_quantize(x, quantizer.bits, quantizer.bits - 1, rounding="nearest")
    if isinstance(quantizer, BlockQuantizer):
        return qtorch.block_quantize(
            x, quantizer.bits, -1 if quantizer.dim is None else quantizer.dim, rounding="nearest"
        )
    top = 2.0 ** min(2 ** (quantizer.exponent - 1), 24)
    return qtorch.float_quantize(x * top, quantizer.exponent, quantizer.mantissa, rounding="nearest") / top


@identified
def test_equal_to_qtorch(qtorch, quantizer):
    x = torch.cat([torch.linspace(-1, 1, 1021), torch.logspace(-30, 0, 499, base=2)]).view(40, 38).contiguous()
    expected = own(qtorch, quantizer, x)
    assert torch.equal(quantizer(x), expected)
    for scale in (2.0**-40, 2.0**30):  # another power of two is another binary point, and nothing else
        assert torch.equal(quantizer(x * scale), expected * scale)
    assert torch.equal(quantizer(x.mT.contiguous().mT), expected)


def test_fixed_point_and_float_have_all_their_values(qtorch):
    x = torch.cat([torch.linspace(-1, 1, 10_001), torch.zeros(1)])
    assert sorted(set(FixedQuantizer(4)(x).tolist())) == [k / 8 for k in range(-8, 8)]
    e3m1 = {m * 2.0**e for e in range(-2, 5) for m in (1, 1.5)} | {0.0, 0.125}  # the last is subnormal; biggest: 24
    found = set((FloatQuantizer(3, 1)(x.abs()) * 16).tolist())
    assert found == {v for v in e3m1 if v <= 16}
    assert sorted(set(BlockQuantizer(3, None)(x).tolist())) == [-1.5 + k / 2 for k in range(1, 6)]


@identified
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_nan_and_infinity(qtorch, quantizer, dtype):
    x = torch.randn(6, 5).to(dtype)
    y = quantizer(x)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    assert torch.equal(y, quantizer(x.float()).to(dtype))
    odd = x.clone()
    odd[0, 0], odd[1, 1], odd[2, 2] = math.nan, math.inf, -math.inf
    for q in (quantizer, stochastic(quantizer)):
        z = q(odd)
        torch.testing.assert_close(z.diag()[:3], odd.diag()[:3], rtol=0, atol=0, equal_nan=True)
        assert int(z.isfinite().sum()) == 27
    for special in (
        torch.zeros(2, 3),
        torch.ones(0, 3),
        torch.tensor(0.5),
        torch.tensor([torch.finfo(dtype).max], dtype=dtype),
    ):
        assert quantizer(special.to(dtype)).isfinite().all()
        assert quantizer(special.to(dtype)).shape == special.shape


@identified
def test_straight_through_copies_and_pickles(qtorch, quantizer):
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 3, dtype=torch.float64)
    (grad,) = torch.autograd.grad((quantizer(x) * w).sum(), x)
    assert torch.equal(grad, w)
    (grad,) = torch.autograd.grad((quantizer.backward(x) * w).sum(), x)
    assert torch.equal(grad, quantizer(w))
    for other in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), eval(repr(quantizer))):
        assert other == quantizer
        assert torch.equal(other(x), quantizer(x))


@identified
def test_stochastic_rounding_is_unbiased_and_replayed(qtorch, quantizer):
    x = torch.tensor([[1.0, 0.9, -0.71, 0.3, 1e-2, -0.003, 0.0]])
    if isinstance(quantizer, FixedQuantizer):
        x[0, 0] = -1.0  # +1 saturates
        x[0, 1] = 0.4
    if isinstance(quantizer, BlockQuantizer) and quantizer.dim == 1:
        x[0] = 0.0  # a block of its own for each column below
    blocks = x.repeat(20_000, 1)
    state = torch.get_rng_state()
    draws = stochastic(quantizer)(blocks)
    assert torch.equal(draws, stochastic(quantizer)(blocks))
    assert torch.equal(torch.get_rng_state(), state)
    error = (draws.double().mean(0) - x[0]).abs()
    assert (error <= 4.5 * draws.double().std(0) / len(draws) ** 0.5 + 1e-6).all(), (error, draws.std(0))
    assert all(len(column.unique()) <= 2 for column in draws.T)
    assert torch.equal(quantizer(draws), draws)  # numbers of the format
    assert torch.equal(stochastic(quantizer, 5)(draws), draws)
    if x.any() and getattr(quantizer, "bits", 0) < 12:
        assert not torch.equal(draws, stochastic(quantizer, 1)(blocks))


@identified
def test_a_largest_value_that_is_drawn_up_does_not_coarsen_the_others(qtorch, quantizer):
    x = torch.tensor([[0.999, 0.4, -0.3, 0.26, 0.011, -0.006]]).repeat(20_000, 1)
    draws = stochastic(quantizer)(x).double()
    error = (draws.mean(0) - x[0]).abs()[1:]  # the largest saturates
    limit = 5 * draws.std(0)[1:] / len(draws) ** 0.5 + 1e-6
    if getattr(quantizer, "dim", None) == 1:  # each column is a block, and each largest saturates in its own
        assert (error <= x[0, 1:].abs() * 2.0 ** (1 - quantizer.bits) * 2).all()
    else:
        assert (error <= limit).all(), (error, limit)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: FixedQuantizer(1), ValueError, "bits must be from 2 to 16, got 1"),
        (lambda: FixedQuantizer(8.0), TypeError, "bits must be an int from 2 to 16, got 8.0"),
        (lambda: FloatQuantizer(1, 3), ValueError, "exponent must be from 2 to 8, got 1"),
        (lambda: FloatQuantizer(4, 0), ValueError, "mantissa must be from 1 to 10, got 0"),
        (lambda: BlockQuantizer(2), ValueError, "bits must be from 3 to 16, got 2"),
        (lambda: BlockQuantizer(8, -1), ValueError, "dim must be from 0 to 63, got -1"),
        (lambda: BlockQuantizer(8, rounding="x"), ValueError, "rounding must be one of"),
    ],
)
def test_errors(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_a_missing_qtorch_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "qtorch.quant", None)  # Python's own way to make an import fail
    qtorch_functions.cache_clear()
    try:
        with pytest.raises(ImportError, match=r'pip install "lognet\[quant\]".*C\+\+ compiler.*ninja') as caught:
            FixedQuantizer(8)(torch.ones(2))
        assert "\n" not in str(caught.value)
    finally:
        monkeypatch.undo()
        qtorch_functions.cache_clear()
