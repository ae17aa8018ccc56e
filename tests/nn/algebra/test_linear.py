"""AlgebraLinear against the real layer with the dense expansion."""

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles import algebra as oracle
from oracles.graph import saved_bytes

import lognet
from lognet import LogTensor
from lognet.nn import Algebra, AlgebraLinear, algebra_linear, from_columns, to_columns

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def close(ours, theirs, dtype=torch.float64):
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def parts(name, dtype, log, out=3, inputs=2):
    a = oracle.SIZES[name]
    x = torch.randn(2, 3, inputs * a, dtype=torch.float64).to(dtype).requires_grad_()
    w = (torch.randn(out, inputs, a, dtype=torch.float64) / a).to(dtype)
    b = torch.randn(out * a, dtype=torch.float64).to(dtype)
    if log:
        w, b = (torch.nn.Parameter(LogTensor.from_float(t, bits=10)) for t in (w, b))
    return x, w.requires_grad_(), b.requires_grad_()


def twins(*tensors):
    return tuple(t.detach().dequantize() if isinstance(t, LogTensor) else t.detach().clone() for t in tensors)


@pytest.mark.parametrize("log", [False, True], ids=["float", "log"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_equals_the_dense_real_layer(name, dtype, log):
    x, w, b = parts(name, dtype, log)
    result = algebra_linear(x, w, name, b)
    tx, tw, tb = (t.requires_grad_() for t in twins(x, w, b))
    expected = F.linear(tx, oracle.dense(name, tw), tb)
    close(result, expected, dtype)
    cotangent = torch.randn_like(expected)
    result.backward(cotangent)
    expected.backward(cotangent)
    for ours, theirs in ((x, tx), (w, tw), (b, tb)):
        assert type(ours.grad) is torch.Tensor
        close(ours.grad, theirs.grad, dtype)


@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_gradcheck(name):
    x, w, b = parts(name, torch.float64, False, out=2)
    assert torch.autograd.gradcheck(lambda *args: algebra_linear(args[0], args[1], name, args[2]), (x[0, :2], w, b))
    log = LogTensor.from_float(w.detach())
    assert torch.autograd.gradcheck(lambda x: algebra_linear(x, log, name, b.detach()), (x[0, :2],))


@pytest.mark.parametrize("log", [False, True], ids=["float", "log"])
@pytest.mark.parametrize("name", ["C", "H", "M2R", "M2C", "D3"])
def test_second_derivatives(name, log):
    x, w, b = parts(name, torch.float64, log)
    tx, tw, tb = (t.requires_grad_() for t in twins(x, w, b))
    results = []
    for out, inputs in (
        (algebra_linear(x, w, name, b), (x, w, b)),
        (F.linear(tx, oracle.dense(name, tw), tb), (tx, tw, tb)),
    ):
        first = torch.autograd.grad(out.pow(3).sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("log", [False, True], ids=["float", "log"])
@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_columns_layout(name, log):
    x, w, b = parts(name, torch.float64, log)
    ours = from_columns(algebra_linear(to_columns(x, name), w, name, b, layout="columns"), name)
    close(ours, algebra_linear(x, w, name, b))


@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_layouts_are_inverse_permutations(name):
    x = torch.arange(3 * oracle.SIZES[name] * 2).view(2, -1)
    moved = to_columns(x, name)
    assert torch.equal(moved.sort().values, x)
    assert torch.equal(from_columns(moved, name), x)
    assert torch.equal(to_columns(x.t(), name, dim=0), moved.t())


def test_column_outermost_means_what_it_says():
    x = torch.randn(5, 3, 3, dtype=torch.float64)  # five matrices
    assert torch.equal(to_columns(x.flatten(), "M3R"), x.permute(2, 0, 1).flatten())
    pairs = torch.randn(5, 2, 2, 2)  # row, column, (re, im)
    assert torch.equal(to_columns(pairs.flatten(), "M2C"), pairs.permute(2, 0, 1, 3).flatten())


def test_an_algebra_of_ones_own():
    # 2 x 2 upper triangular matrices: columns of different height, so no fast form, but right
    upper = Algebra("T2", [(0, 0, 0, 1), (1, 0, 1, 1), (1, 1, 2, 1), (2, 2, 2, 1)])
    assert upper.is_associative
    weighted = Algebra("weighted", [(0, 0, 0, 2.5), (0, 1, 1, 1), (0, 0, 1, -1), (1, 0, 1, 1)])
    pairs = Algebra(
        "C x C", [(i + 2 * k, j + 2 * k, m + 2 * k, s) for k in range(2) for i, j, m, s in Algebra("C").entries]
    )
    for algebra in (upper, weighted, pairs):
        x = torch.randn(4, 2 * algebra.size, dtype=torch.float64, requires_grad=True)
        w = torch.randn(3, 2, algebra.size, dtype=torch.float64, requires_grad=True)
        close(algebra_linear(x, w, algebra), F.linear(x, algebra.expand(w)))
        assert torch.autograd.gradcheck(lambda x, w, algebra=algebra: algebra_linear(x, w, algebra), (x, w))
        products = algebra.multiply(w.unsqueeze(0), x.view(4, 1, 2, algebra.size)).sum(2)
        close(algebra_linear(x, w, algebra), products.flatten(1))


@pytest.mark.parametrize("name", ["C", "H", "M2R", "M4R", "M2C", "D4"])
def test_the_graph_keeps_codes_and_never_a_decoded_weight(name):
    layer = AlgebraLinear(288 * oracle.SIZES[name], 320, algebra=name, bits=8)
    x = torch.randn(1, layer.in_features)
    kept, total = saved_bytes(lambda: layer(x).sum())
    assert kept < layer.weight.numel() * 4 / 2
    total.backward()
    assert type(layer.weight.grad) is torch.Tensor


def test_layer_is_a_module_like_torchs():
    layer = AlgebraLinear(8, 12, algebra="M2R", dtype=torch.float64)
    assert repr(layer) == "AlgebraLinear(8, 12, algebra=M2R, bias=True)"
    assert layer.weight.shape == (3, 2, 4)
    assert layer.bias.shape == (12,)
    assert (layer.bias == 0).all()
    assert AlgebraLinear(8, 12, bias=False, algebra="M2R").bias is None
    x = torch.randn(5, 8, dtype=torch.float64)
    close(layer(x), F.linear(x, layer.dense_weight(), layer.bias))
    close(copy.deepcopy(layer)(x), layer(x))
    other = AlgebraLinear(8, 12, algebra="M2R", dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    close(other(x), layer(x))
    before = layer.weight.clone()
    layer.reset_parameters()
    assert (layer.weight != before).all()
    assert AlgebraLinear(8, 12, algebra="H", device="meta").weight.is_meta
    assert layer(torch.zeros(0, 8, dtype=torch.float64)).shape == (0, 12)


@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_each_component_is_glorot_initialised(name):
    a = oracle.SIZES[name]
    w = AlgebraLinear(60 * a, 90 * a, algebra=name).weight.detach()
    bound = (6 / 150) ** 0.5
    assert float(w.abs().max()) <= bound
    for component in w.unbind(-1):
        assert float(component.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_bits_and_wrap_and_unwrap_agree():
    layer = AlgebraLinear(8, 12, algebra="H", bits=8)
    assert all(isinstance(p, LogTensor) and p.bits == 8 for p in layer.parameters())
    assert repr(layer).endswith("bits=8)")
    x = torch.randn(5, 8)
    twin = lognet.unwrap(copy.deepcopy(layer))
    torch.testing.assert_close(layer(x), twin(x))
    rewrapped = lognet.wrap(twin, bits=12)
    assert rewrapped.weight.bits == 12
    torch.testing.assert_close(rewrapped(x), layer(x), rtol=0.05, atol=0.05)
    layer.reset_parameters()
    assert isinstance(layer.weight, LogTensor)


@pytest.mark.parametrize("name", ["H", "M2R", "D4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [None, 8])
def test_autocast(name, dtype, bits):
    layer = AlgebraLinear(16, 8, algebra=name, bits=bits)
    with torch.autocast("cpu", dtype=dtype):
        out = layer(torch.randn(3, 16))
    assert out.dtype == dtype
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AlgebraLinear(65, 128, algebra="H"), ValueError, "=65 must be a positive multiple of 4, .* nearest is 64"),
        (lambda: AlgebraLinear(63, 130, algebra="M3R"), ValueError, "out_features=130 .* nearest is 126"),
        (lambda: AlgebraLinear(64, 0, algebra="H"), ValueError, "nearest is 4"),
        (lambda: AlgebraLinear(64.0, 4, algebra="H"), TypeError, "in_features must be an int"),
        (lambda: AlgebraLinear(64, 64, algebra="H", layout="rows"), ValueError, "layout must be one of 'tuples', 'columns'"),
        (lambda: AlgebraLinear(64, 64, algebra="H", bits=1), ValueError, "bits must be from 2 to 16"),
        (lambda: AlgebraLinear(64, 64, algebra="H", bits="8"), TypeError, "bits must be None .* or an int, got '8'"),
        (lambda: AlgebraLinear(64, 64, algebra="H", bits=8, device="meta"), ValueError, "weight is on the meta device"),
        (lambda: AlgebraLinear(8, 8, algebra="H")(torch.ones(2, 12)), ValueError, r"in_features=8 last \(2 tuples of 4\)"),
        (lambda: algebra_linear(torch.ones(8), torch.ones(8, 8), "H"), ValueError, r"must be \(out_tuples, in_tuples, 4\)"),
        (lambda: AlgebraLinear(8, 8, algebra="H")(torch.ones(2, 8).double()), TypeError, "input is torch.float64 but"),
        (lambda: AlgebraLinear(8, 8, algebra="R", bits=8)(torch.ones(2, 8).long()), TypeError, "input is torch.int64 but"),
        (lambda: to_columns(torch.ones(6), "M2R"), ValueError, "of size 6 must be a multiple of 4"),
    ],
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
