"""Dropout, nonlinearities, lifting and norms of tuples; embeddings."""

import pytest
import torch

from lognet import LogTensor
from lognet.nn import AlgebraEmbedding, TupleActivation, TupleDropout, TupleLift, TupleNorm, determinant

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, -1])
def test_dropout_takes_whole_tuples(dtype, dim):
    drop = TupleDropout(0.25, algebra="M2R", dim=dim)
    x = torch.randn(50, 400, 3, dtype=dtype).abs() + 1
    x = x if dim == 1 else x.movedim(1, -1)
    y = drop(x)
    assert y.dtype == dtype
    dead = (y == 0).movedim(dim, -1).unflatten(-1, (100, 4))
    assert (dead.any(-1) == dead.all(-1)).all()
    assert float(dead.float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(y[y != 0], x[y != 0] / 0.75, rtol=1e-2, atol=1e-2)
    assert drop.eval()(x) is x
    assert (TupleDropout(1.0, algebra="M2R", dim=dim)(x) == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm(dtype):
    x = torch.randn(3, 8, 5, dtype=dtype)
    expected = x.view(3, 2, 4, 5).double().square().sum(2).sqrt()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 1e-2)
    torch.testing.assert_close(TupleNorm(algebra="H", dim=1)(x).double(), expected, rtol=tolerance, atol=tolerance)
    zero = torch.zeros(8, requires_grad=True)
    TupleNorm(algebra="H")(zero).sum().backward()
    assert (zero.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations(dtype):
    x = torch.randn(6, 8, 3, dtype=dtype)
    t = x.view(6, 2, 4, 3)
    mean, norm = t.mean(2, keepdim=True), t.square().sum(2, keepdim=True).sqrt()
    det = (t[:, :, 0] * t[:, :, 3] - t[:, :, 1] * t[:, :, 2]).unsqueeze(2)
    for f, g, gate in (
        ("heaviside", "mean", (mean > 0).to(dtype)),
        ("sigmoid", "norm", norm.sigmoid()),
        ("relu", "det", det.relu()),
        (torch.tanh, lambda t: t[..., 0], t[:, :, :1].tanh()),
    ):
        result = TupleActivation(f, g, algebra="M2R", dim=1)(x)
        torch.testing.assert_close(result, (gate * t).view(x.shape))
    x.requires_grad_()
    TupleActivation("relu", "det", algebra="M2R", dim=1)(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_determinants():
    m = torch.randn(5, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(determinant(m.flatten(1), "M3R"), torch.linalg.det(m))
    z = torch.randn(5, 2, 2, dtype=torch.complex128)
    torch.testing.assert_close(determinant(torch.view_as_real(z).flatten(1), "M2C"), torch.linalg.det(z).abs().square())
    q = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(determinant(q, "H"), q.square().sum(-1).square())
    torch.testing.assert_close(determinant(q, "D4"), q.prod(-1))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bits", [None, 8])
def test_lift(layers, bits):
    lift = TupleLift(3, layers, algebra="M2R", bits=bits, dim=1)
    x = torch.randn(2, 3, 4, 5)
    y = lift(x)
    assert y.shape == (2, 12, 4, 5)
    assert torch.equal(y[:, ::4], x)
    by_hand = lift.mlp(x[1, :, 2, 3])
    torch.testing.assert_close(y[1, :, 2, 3].view(3, 4)[:, 1:].flatten(), by_hand)
    assert all(isinstance(p, LogTensor) == (bits == 8) for p in lift.parameters())
    assert len(list(lift.parameters())) == 2 * layers
    y.sum().backward()
    real = TupleLift(3, algebra="R")
    assert real(x[..., :3]) is not None
    assert not list(real.parameters())


def test_embedding():
    table = AlgebraEmbedding(10, 8, algebra="H", padding_idx=3, bits=8)
    assert isinstance(table.weight, LogTensor)
    index = torch.tensor([[1, 3], [9, 0]])
    out = table(index)
    assert out.shape == (2, 2, 8)
    assert (out[0, 1] == 0).all()
    torch.testing.assert_close(out, table.weight.dequantize()[index])
    out.sum().backward()
    assert (table.weight.grad[3] == 0).all()
    plain = AlgebraEmbedding(10, 8, algebra="H", dtype=torch.float64)
    assert torch.equal(plain(index), plain.weight[index])
    assert repr(plain) == "AlgebraEmbedding(10, 8, algebra=H)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AlgebraEmbedding(10, 6, algebra="H"), "embedding_dim=6 must be a positive multiple of 4"),
        (lambda: AlgebraEmbedding(10, 8, algebra="H", bits=8, sparse=True), "sparse=True is not supported with bits=8"),
        (lambda: TupleDropout(1.5, algebra="H"), "p must be a probability"),
        (lambda: TupleDropout(algebra="H")(torch.ones(2, 6)), r"input.shape\[1\]=6 must be a positive multiple of 4"),
        (lambda: TupleActivation("cube", algebra="H"), "f must be a function or one of 'heaviside'"),
        (lambda: TupleActivation(g="max", algebra="H"), "g must be a function or one of 'mean'"),
        (lambda: TupleLift(3, 3, algebra="H"), "layers must be 1 or 2, got 3"),
        (lambda: TupleLift(0, algebra="H"), "in_features must be positive"),
        (lambda: TupleLift(3, algebra="H")(torch.ones(2, 4)), "in_features=3 along dim=-1"),
        (lambda: TupleNorm(algebra="H")(torch.ones(2, 6)), "must be a positive multiple of 4"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
