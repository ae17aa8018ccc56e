"""Quantizers on every value they have, in every dtype, through autograd, copies and compilers."""

import copy
import math
import pickle
import re

import pytest
import torch

from lognet.quant import LogQuantizer, Quantizer, as_quantizer
from lognet.quant.random_bits import content_key

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def values_of(bits: int, base_precision: float, scale: float) -> list[float]:
    """Every number of the format, one at a time: +-scale e^(-k eta_0) for all k but the last, and zero."""
    positive = [scale * math.exp(-k * base_precision) for k in range(2**bits - 1)]
    return sorted([-v for v in positive] + [0.0] + positive)


def nearest(x: float, values: list[float]) -> float:
    return min(values, key=lambda v: abs(v - x))


def dense(scale: float, count: int = 1201) -> torch.Tensor:
    """Values of all sizes and both signs, whose power of two above is `scale`."""
    sizes = torch.logspace(-17, 0, count, base=2, dtype=torch.float64) * scale * 0.999
    return torch.cat([sizes, -sizes, torch.zeros(1, dtype=torch.float64)])


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("scale", [2.0**-20, 0.5, 1.0, 64.0])
def test_the_complete_set_of_values(bits, scale):
    quantizer = LogQuantizer(bits)
    x, expected = dense(scale), values_of(bits, math.log(2) * 2.0 ** (4 - bits), scale)
    rounded = quantizer(x)
    found = sorted(set(rounded.tolist()))
    assert len(found) == 2 ** (bits + 1) - 1
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-6, atol=0)
    gap = (rounded - x).abs() - torch.tensor([abs(nearest(v, expected) - v) for v in x.tolist()], dtype=torch.float64)
    assert (gap.abs() <= 1e-9 * scale).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12, 16])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_numbers_of_the_format_stay_and_lie_on_one_grid_whatever_the_scale(bits, rounding):
    quantizer = LogQuantizer(bits, rounding=rounding)
    once = quantizer(dense(1.0).float())
    assert torch.equal(quantizer(once), once)
    if bits >= 4:  # an octave is a whole number of rungs
        wider = quantizer(torch.cat([once, torch.tensor([3.0])]))[:-1]
        kept = once.abs() > 2.0**-12
        assert torch.equal(wider[kept], once[kept])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_dtypes(dtype, rounding):
    quantizer, x = LogQuantizer(8, rounding=rounding), torch.randn(7, 5, 3).to(dtype)
    y = quantizer(x)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    most = (2.0 ** (1 / 16) - 1) * (0.52 if rounding == "nearest" else 1.001) + torch.finfo(dtype).eps
    assert ((y - x).abs() <= most * x.abs() + 1e-4).all()
    same = quantizer(x.to(torch.promote_types(dtype, torch.float32)))  # in which it computes
    torch.testing.assert_close(y, same.to(dtype), rtol=0, atol=0)
    assert torch.equal(quantizer(x.mT), quantizer(x.mT.contiguous()))  # draws go by index, not by place in memory


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_and_move_nothing_else(dtype):
    plain = torch.tensor([1.0, -0.3, 0.0, 1e-3], dtype=dtype)
    odd = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)
    for rounding in ("nearest", "stochastic"):
        y = LogQuantizer(6, rounding=rounding)(torch.cat([plain, odd]))
        torch.testing.assert_close(y[4:], odd, rtol=0, atol=0, equal_nan=True)
        assert y[:4].isfinite().all()
    assert torch.equal(LogQuantizer(6)(torch.cat([plain, odd]))[:4], LogQuantizer(6)(plain))
    assert LogQuantizer(4)(odd)[0].isnan()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_of_the_range(dtype):
    quantizer = LogQuantizer(8)
    largest = torch.finfo(dtype).max
    top = quantizer(torch.tensor([largest, -largest], dtype=dtype))
    assert top.isfinite().all()
    if dtype == torch.float16:
        assert (top.abs() > 0.97 * largest).all()
    assert (quantizer(torch.tensor([1e-300, -1e-38, 0.0], dtype=dtype)).abs() <= 1e-30).all()
    assert torch.equal(quantizer(torch.zeros(3, dtype=dtype)), torch.zeros(3, dtype=dtype))
    assert quantizer(torch.ones(0, 4, dtype=dtype)).shape == (0, 4)
    assert quantizer(torch.tensor(0.25, dtype=dtype)).item() == 0.25


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_straight_through(rounding):
    """Forward rounds and backward is the identity; the other way round for `backward`; and so again for the second."""
    quantizer = LogQuantizer(3, rounding=rounding)
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    w = torch.randn(50, dtype=torch.float64)
    y = quantizer(x)
    assert len(set(y.abs().tolist())) <= 8
    (grad,) = torch.autograd.grad((y * w).sum(), x)
    assert torch.equal(grad, w)
    assert torch.equal(quantizer.backward(x), x)
    (grad,) = torch.autograd.grad((quantizer.backward(x) * w).sum(), x)
    assert torch.equal(grad, quantizer(w))
    v = w.clone().requires_grad_()
    (grad,) = torch.autograd.grad((quantizer.backward(x) * v).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), v)
    assert torch.equal(second, torch.ones_like(v))


def test_gradients_of_a_network_are_those_of_its_rounded_inputs():
    """gradcheck cannot see through rounding, but the chain rule can: d loss / d x = f'(Q(x)), and weights see Q(x)."""
    quantizer = LogQuantizer(5)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    loss = torch.tanh(quantizer(x) @ w.T).square().sum()
    straight = quantizer(x).detach().requires_grad_()
    other = torch.tanh(straight @ w.T).square().sum()
    for a, b in zip(torch.autograd.grad(loss, [x, w]), torch.autograd.grad(other, [straight, w]), strict=True):
        assert torch.equal(a, b)
    assert torch.autograd.gradcheck(lambda x, w: torch.tanh(x @ w.T).square().sum(), [straight, w])


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stochastic_rounding_is_unbiased(bits, dtype):
    """Between rungs, and between the last rung and zero: the mean is the value, and its neighbours are the only results."""
    x = torch.tensor([1.0, 0.9, -0.7, 0.3, 1e-3, -(2.0**-15.7), 2.0**-18], dtype=dtype)
    for seed in range(3):
        draws = LogQuantizer(bits, rounding="stochastic", seed=seed)(x.repeat(40_000, 1)).double()
        error = (draws.mean(0) - x).abs()
        assert (error <= 4.5 * draws.std(0) / len(draws) ** 0.5 + 1e-9).all(), error
        assert all(len(column.unique()) <= 2 for column in draws.T)
        assert draws[:, 1].std() > 0


def test_elements_round_independently():
    x = torch.full((100_000,), 0.9)
    up = (LogQuantizer(4, rounding="stochastic")(x) > 0.9).double()
    share = (0.9 - 0.5) / 0.5
    assert abs(up.mean() - share) < 5 * (share * (1 - share) / len(x)) ** 0.5
    assert abs(torch.corrcoef(torch.stack([up[1:], up[:-1]]))[0, 1]) < 5 / len(x) ** 0.5


def test_random_bits_are_those_of_the_seed_and_the_tensor():
    x = torch.randn(1000)
    quantizer = LogQuantizer(4, rounding="stochastic")
    state = torch.get_rng_state()
    first = quantizer(x)
    assert torch.equal(quantizer(x.clone()), first)  # a recomputed pass, a resumed run, another replica
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(LogQuantizer(4, rounding="stochastic", seed=1)(x), first)
    changed = x.clone()
    changed[0] = changed[0] * (1 + 2**-23)  # a last bit
    assert (quantizer(changed) != first)[1:].double().mean() > 0.1
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        big = torch.randn(200_000)
        two = content_key(big, 3)
        torch.set_num_threads(1)
        assert torch.equal(content_key(big, 3), two)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("quantizer", [LogQuantizer(), LogQuantizer(5, 0.1, "stochastic", 7)])
def test_a_quantizer_is_a_value(quantizer):
    for other in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), eval(repr(quantizer))):
        assert other == quantizer
        assert hash(other) == hash(quantizer)
    assert quantizer != LogQuantizer(9)
    with pytest.raises(AttributeError):
        quantizer.bits = 4
    assert quantizer.describe() == {
        "format": "log",
        "bits": quantizer.bits,
        "base_precision": quantizer.base_precision,
        "rounding": quantizer.rounding,
        "seed": quantizer.seed,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler makes an autograd.Function of its own
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_one_graph_for_all_steps_with_the_same_values(rounding):
    torch._dynamo.reset()
    quantizer = LogQuantizer(5, rounding=rounding)
    function = lambda x: quantizer.backward(quantizer(x) * 2)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            x = torch.randn(9, 4, requires_grad=True)
            results = []
            for f in (compiled, function):
                y = f(x)
                results.append([y, *torch.autograd.grad(y.square().sum(), x)])
            assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: LogQuantizer(1), ValueError, "bits must be from 2 to 16, got 1"),
        (lambda: LogQuantizer(8.0), TypeError, "bits must be an int from 2 to 16, got 8.0"),
        (lambda: LogQuantizer(8, -1.0), ValueError, "base_precision must be a positive finite number, got -1.0"),
        (
            lambda: LogQuantizer(8, rounding="up"),
            ValueError,
            "rounding must be one of 'nearest', 'stochastic', got 'up'",
        ),
        (lambda: LogQuantizer(8, seed="x"), TypeError, "seed must be an int, got 'x'"),
        (
            lambda: LogQuantizer(8)(torch.arange(3)),
            TypeError,
            "got torch.int64; convert it first, for example x.float()",
        ),
        (lambda: LogQuantizer(8)(1.0), TypeError, "takes a torch.Tensor, got float; convert it with torch.as_tensor"),
        (lambda: LogQuantizer(8).backward(torch.arange(3)), TypeError, "takes a floating tensor"),
        (lambda: as_quantizer("fixd8"), ValueError, "unknown quantizer 'fixd8'; use a number of bits"),
        (lambda: as_quantizer("e4m"), ValueError, "unknown quantizer 'e4m'"),
        (lambda: as_quantizer("log17"), ValueError, "bits must be from 2 to 16, got 17"),
        (lambda: as_quantizer(True), TypeError, "got True"),
        (lambda: as_quantizer(None), TypeError, "got None"),
    ],
)
def test_errors_name_the_remedy(make, error, said):
    with pytest.raises(error, match="^[^\n]*" + re.escape(said)):
        make()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("8", "log8"),
        ("log6", "log6"),
        ("fixed4", "fixed4"),
        ("float8", "float8"),
        ("e4m3", "float8"),
        ("e5m2", "e5m2"),
        ("block8", "block8"),
    ],
)
def test_names(name, shown):
    made = as_quantizer(name, rounding="stochastic")
    assert isinstance(made, Quantizer)
    assert (str(made), made.rounding) == (shown, "stochastic")
    assert as_quantizer(shown, rounding="stochastic") == made
    assert as_quantizer(made) is made
