"""Few rows: where codes are multiplied directly, where not, and that nobody sees a difference but in time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lognet
from lognet import LogTensor
from lognet.quant.kernels import backend, native, use
from lognet.tensor.few_rows import FEW_ROWS, few_rows

native_only = pytest.mark.skipif(backend() == "reference", reason="installed without the native kernels")


@pytest.fixture
def calls(monkeypatch):
    """How many products the native library was asked for."""
    made = []
    product = native.linear
    monkeypatch.setitem(native.back_end.functions, "linear", lambda *args: made.append(1) or product(*args))
    return made


def weight_of(shape=(6, 40), bits=8, dtype=torch.float32):
    return LogTensor.from_float(torch.randn(shape, dtype=dtype), bits)


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [5, 8, 10, 12])
def test_every_way_to_ask_for_a_product(calls, dtype, bits):
    w, b = weight_of(bits=bits, dtype=dtype), torch.randn(6, dtype=dtype)
    dense, rows = w.dequantize(), torch.randn(3, 40, dtype=dtype)
    ways = {
        "linear": (F.linear(rows, w, b), F.linear(rows, dense, b)),
        "a LogTensor for a bias": (
            F.linear(rows, w, LogTensor.from_float(b)),
            F.linear(rows, dense, LogTensor.from_float(b)),
        ),
        "linear in three dimensions": (F.linear(rows.view(3, 1, 40), w), F.linear(rows.view(3, 1, 40), dense)),
        "linear of a vector": (F.linear(rows[0], w), F.linear(rows[0], dense)),
        "mv": (torch.mv(w, rows[0]), torch.mv(dense, rows[0])),
        "mv as a method": (w.mv(rows[0]), dense.mv(rows[0])),
        "weight @ vector": (w @ rows[0], dense @ rows[0]),
        "weight @ matrix": (w @ rows.T, dense @ rows.T),
        "vector @ transpose": (rows[0] @ w.T, rows[0] @ dense.T),
        "matrix @ transpose": (torch.matmul(rows, w.mT), rows @ dense.T),
        "mm": (torch.mm(rows, w.t()), rows @ dense.T),
        "no rows": (F.linear(rows[:0], w), F.linear(rows[:0], dense)),
        "strides": (F.linear(rows.T.contiguous().T, w), F.linear(rows, dense)),
    }
    for name, (got, expected) in ways.items():
        assert got.dtype == dtype, name
        torch.testing.assert_close(got, expected, msg=lambda m, n=name: f"{n}: {m}", **tolerance(dtype))
    assert len(calls) == len(ways)


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_bias(calls, dtype):
    w, x = weight_of((6, 40), dtype=dtype), torch.randn(3, 40, dtype=dtype)
    b = LogTensor.from_float(torch.randn(6, dtype=dtype), 12)
    biases = {
        "floats": b.dequantize(),
        "codes": b,
        "a parameter": nn.Parameter(b, requires_grad=False),
        "pruned codes": LogTensor.from_float(b.dequantize(), 5).set_mask_(torch.arange(6) != 2),
        "a part of codes": LogTensor.from_float(torch.randn(9, dtype=dtype))[3:],
        "strided floats": torch.randn(12, dtype=dtype)[::2],
        "one for all": torch.randn(1, dtype=dtype),
    }
    product = F.linear(x.float(), w.to(torch.float32))
    for name, bias in biases.items():
        values = bias.dequantize() if isinstance(bias, LogTensor) else bias
        assert torch.equal(F.linear(x, w, bias), (product + values).to(dtype)), name
    assert len(calls) == 1 + len(biases)


@native_only
def test_a_model_in_inference(calls):
    model = lognet.wrap(nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5)))
    x = torch.randn(2, 24)
    expected = model(x).detach()
    assert not calls
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(model(x), expected)
    assert len(calls) == 4


@native_only
def test_bfloat16_is_rounded_once():
    """The result is the rounded value of a float32 sum, and the sum is as near the exact one as `few_rows` promises."""
    w = weight_of((50, 200))
    x = torch.randn(1, 200).bfloat16()
    dense = w.dequantize().double()
    exact, error = F.linear(x.double(), dense), (200 + 8) * 2.0**-24 * F.linear(x.double().abs(), dense.abs())
    rounded = F.linear(x, w.to(torch.bfloat16))
    assert ((exact - error).bfloat16() <= rounded).all()
    assert (rounded <= (exact + error).bfloat16()).all()


def excused():
    """Cases that decode, as (input, weight)."""
    w, x = weight_of(), torch.randn(2, 40)
    masked = weight_of().set_mask_(torch.rand(6, 40) < 0.5)
    return {
        "many rows": (torch.randn(FEW_ROWS + 1, 40), w),
        "a view": (x, weight_of((8, 40))[2:]),
        "a transposed weight": (x, weight_of((40, 6)).t()),
        "a mask": (x, masked),
        "float64": (x.double(), w.double()),
        "float16": (x.half(), w.half()),
    }


@pytest.mark.parametrize("case", excused())
def test_everything_else_decodes(calls, case):
    x, w = excused()[case]
    assert few_rows(x, w) is None
    torch.testing.assert_close(F.linear(x, w), F.linear(x, w.dequantize()))
    assert not calls


def test_whoever_differentiates_decodes(calls):
    w, x = weight_of(), torch.randn(2, 40)
    parameter = nn.Parameter(w)
    F.linear(x, parameter).sum().backward()
    assert parameter.grad is not None
    y = x.clone().requires_grad_()
    F.linear(y, w).sum().backward()
    torch.testing.assert_close(y.grad, w.dequantize().sum(0).expand(2, -1))
    bias = torch.zeros(6, requires_grad=True)
    F.linear(x, w, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((6,), 2.0))
    (parameter @ x.T).sum().backward()
    (x @ parameter.T).sum().backward()
    assert torch.func.grad(lambda z: F.linear(z, w).sum())(x).shape == x.shape
    assert not calls


@native_only
def test_frozen_weights_need_no_mode(calls):
    w, x = weight_of(), torch.randn(1, 40)
    F.linear(x, w)
    F.linear(x, nn.Parameter(w, requires_grad=False))
    assert len(calls) == 2


def test_the_reference_back_end_decodes(calls):
    w, x = weight_of(), torch.randn(1, 40)
    with use("reference"):
        assert torch.equal(F.linear(x, w), F.linear(x, w.dequantize()))
    assert not calls


def test_a_bias_of_another_dtype_is_torchs_error():
    w, x = weight_of(), torch.randn(2, 40)
    for bias in (torch.randn(6, dtype=torch.float64), LogTensor.from_float(torch.randn(6, dtype=torch.float64))):
        with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
            F.linear(x, w, bias)


def test_errors_are_torchs_own(calls):
    w = weight_of()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        F.linear(torch.randn(2, 39), w)
    with pytest.raises(RuntimeError, match="dtype"):
        F.linear(torch.randn(2, 40).bfloat16(), w)
    assert not calls
