import copy
import math
import pickle

import pytest
import torch
from torch import nn

import lognet
from lognet import LogTensor

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("shape", [(), (1,), (7,), (33, 5), (0,), (0, 4), (2, 3, 4, 5)])
def test_bytes_held(bits, shape):
    x = randn(*shape)
    w = LogTensor.from_float(x, bits=bits, scale=4.0)
    assert w.nbytes <= (bits + 1) / 8 * x.numel() + 256
    planes = [getattr(w, name).untyped_storage().nbytes() for name in w.__tensor_flatten__()[0]]
    assert w.nbytes == sum(planes)
    assert w.shape == x.shape == w.exponent.shape == w.signs.shape == w.dequantize().shape


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_code_and_sign_survives(bits):
    n = 2**bits
    k = torch.arange(n).repeat(2)
    signs = torch.tensor([1, -1]).repeat_interleave(n)
    w = LogTensor.from_codes(k, signs, bits=bits, scale=1.7)
    assert w.exponent.dtype == torch.int32
    assert w.signs.dtype == torch.int8
    assert torch.equal(w.exponent, k.to(torch.int32))
    assert torch.equal(w.signs, signs.to(torch.int8))
    again = LogTensor.from_float(w.dequantize(), bits=bits, scale=1.7)
    assert torch.equal(again.exponent, w.exponent)
    assert torch.equal(again.signs, w.signs)
    index = torch.randint(0, 2 * n, (3, 50), generator=torch.Generator().manual_seed(0))
    assert torch.equal(w._storage.decode_at(index, torch.float32), w.dequantize()[index])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 4, 8, 10, 12, 16])
def test_relative_error_is_half_a_rung(dtype, bits):
    x = randn(1000, dtype=dtype)
    w = LogTensor.from_float(x, bits=bits)
    assert w.dtype == dtype
    assert float(w.scale) == float(x.abs().max())
    on_ladder = x.double().abs() >= float(w.scale) / w.format.range
    error = (w.dequantize(torch.float64) / x.double())[on_ladder].log().abs().max()
    assert error <= w.base_precision / 2 * (1 + 1e-6) + 1e-7


def test_scale_given_saturates():
    w = LogTensor.from_float(torch.tensor([5.0, -5.0, 1e-9]), bits=8, scale=2.0)
    assert w.exponent.tolist() == [0, 0, 255]
    assert w.dequantize()[:2].tolist() == [2.0, -2.0]
    assert LogTensor.from_float(torch.tensor([1.0]), scale=torch.tensor(2.0)).exponent.item() == 32


def test_zeros_stand_on_the_last_rung_with_a_seeded_sign():
    x = torch.zeros(1000)
    w = LogTensor.from_float(x, scale=1.0)
    assert (w.exponent == 255).all()
    assert 400 < (w.signs == 1).sum() < 600
    assert torch.equal(w.signs, LogTensor.from_float(x, scale=1.0).signs)
    draw = lambda seed: LogTensor.from_float(x, scale=1.0, generator=torch.Generator().manual_seed(seed)).signs
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_stochastic_rounding_draws_from_the_generator():
    x = torch.full((1000,), math.exp(-0.3 * lognet.LogFormat(8).base_precision))
    draw = lambda seed: LogTensor.from_float(
        x, scale=1.0, rounding="stochastic", generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(1).exponent, draw(1).exponent)
    assert not torch.equal(draw(1).exponent, draw(2).exponent)
    torch.manual_seed(0)
    assert not torch.equal(
        LogTensor.from_float(x, scale=1.0, rounding="stochastic").exponent,
        LogTensor.from_float(x, scale=1.0, rounding="stochastic").exponent,
    )


@pytest.mark.parametrize(
    ("x", "arguments", "error", "words"),
    [
        ([1.0, math.nan], {}, ValueError, "x must be finite, but 1 of 2"),
        ([math.inf, 1.0], {}, ValueError, "x must be finite"),
        ([0.0, 0.0], {}, ValueError, "x is all zeros.*give scale="),
        ([1.0], {"bits": 1}, ValueError, "bits must be from 2 to 16"),
        ([1.0], {"bits": 8.5}, TypeError, "bits must be an int"),
        ([1.0], {"base_precision": -1.0}, ValueError, "base_precision must be"),
        ([1.0], {"scale": 0.0}, ValueError, "scale must be"),
        ([1.0], {"scale": math.inf}, ValueError, "scale must be"),
        ([1.0], {"scale": torch.ones(2)}, ValueError, "scale must be one number"),
        ([1e-38], {}, ValueError, "normal float32"),
        ([1.0], {"rounding": "up"}, ValueError, "rounding must be one of 'nearest', 'stochastic', got 'up'"),
        ([1], {}, TypeError, "x must have a floating dtype, got torch.int64"),
        ([1j], {}, TypeError, "x must have a floating dtype, got torch.complex64"),
        ([True], {}, TypeError, "floating dtype"),
    ],
)
def test_bad_input(x, arguments, error, words):
    with pytest.raises(error, match=words):
        LogTensor.from_float(torch.tensor(x), **arguments)


def test_not_a_tensor():
    with pytest.raises(TypeError, match="x must be a torch.Tensor, got list"):
        LogTensor.from_float([1.0])


@pytest.mark.parametrize(
    ("k", "signs", "words"),
    [([256], [1], "0 .. 255"), ([-1], [1], "0 .. 255"), ([1], [0], "signs"), ([1, 2], [1], "one shape")],
)
def test_bad_codes(k, signs, words):
    with pytest.raises(ValueError, match=words):
        LogTensor.from_codes(torch.tensor(k), torch.tensor(signs), bits=8, scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_dense_and_right(dtype):
    w = nn.Parameter(LogTensor.from_float(randn(6, 10, dtype=dtype), bits=8))
    dense = w.detach().dequantize().requires_grad_()
    for x in (w, dense):
        ((x * x).sum() + x.t()[2].exp().sum() + x[1:3].prod()).backward()
    assert type(w.grad) is torch.Tensor
    torch.testing.assert_close(w.grad, dense.grad, rtol=1e-6, atol=1e-9)
    w.grad = None
    w.dequantize(torch.float64).sum().backward()
    assert w.grad.dtype == dtype
    assert (w.grad == 1).all()


def test_stale_graphs_are_noticed():
    w = nn.Parameter(LogTensor.from_float(randn(3, 3)))
    y = (w * w).sum()
    w.write_codes_(w.exponent, w.signs)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_mask_is_zero_and_costs_a_bit_a_group():
    x = randn(100, 32)
    w = LogTensor.from_float(x, bits=10)
    bare, before = w.nbytes, w.dequantize()
    rows = torch.arange(100)[:, None] % 10 != 3
    w.set_mask_(rows)
    assert w.nbytes <= bare + 13
    expected = before * rows
    assert torch.equal(w, expected)
    assert torch.equal(w.mask, rows.expand(100, 32))
    assert torch.equal(w.t()[3:7], expected.t()[3:7])
    assert torch.equal(w._storage.decode_at(torch.arange(96, 200), torch.float32), expected.view(-1)[96:200])
    for same in (w.clone(), copy.deepcopy(w), w[2:50].clone(), pickle.loads(pickle.dumps(w))):
        assert torch.equal(same, expected[2:50] if same.shape[0] == 48 else expected)
    w.mul_(0.5)
    assert torch.equal(w[3], torch.zeros(32))
    fine = torch.rand(100, 32, generator=torch.Generator().manual_seed(1)) < 0.5
    w.set_mask_(fine)
    assert torch.equal(w == 0, ~fine)
    w.set_mask_(None)
    assert (w != 0).all()
    with pytest.raises(ValueError, match="mask must be a bool tensor"):
        w.set_mask_(torch.ones(3, 3, dtype=torch.bool))


def test_repr_shows_values_and_ladder():
    text = repr(LogTensor.from_float(torch.tensor([1.0, -0.5]), bits=8))
    assert text == "LogTensor([ 1.0000, -0.5000], bits=8, base_precision=0.02166)"


def test_from_codes_owns_its_memory():
    k = torch.zeros(100, dtype=torch.uint8)
    w = LogTensor.from_codes(k[:4], torch.ones(4, dtype=torch.int8), bits=8, scale=1.0)
    k.fill_(7)
    assert w.exponent.tolist() == [0, 0, 0, 0]
    assert w.nbytes == 4 + 1 + 4


@pytest.mark.parametrize("mask", [torch.tensor([[True], [False], [True]]), None])
def test_a_graph_from_before_a_change_of_the_mask_is_noticed(mask):
    w = nn.Parameter(LogTensor.from_float(randn(3, 3)).set_mask_(torch.tensor([[False], [True], [True]])))
    y = (w * w).sum()
    w.set_mask_(mask)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
