"""Batch norm over tuples and whitening."""

import copy

import pytest
import torch

import lognet
from lognet import LogTensor
from lognet.nn import AlgebraBatchNorm1d, AlgebraBatchNorm2d, AlgebraBatchNorm3d, AlgebraWhitening

ALGEBRAS = {"R": 1, "C": 2, "H": 4, "M3R": 9, "M2C": 8}


@pytest.mark.parametrize("bits", [None, 12])
@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (AlgebraBatchNorm1d, torch.nn.BatchNorm1d, (6, 8)),
        (AlgebraBatchNorm2d, torch.nn.BatchNorm2d, (6, 8, 3, 3)),
        (AlgebraBatchNorm3d, torch.nn.BatchNorm3d, (6, 8, 2, 2, 2)),
    ],
)
def test_batch_norm_is_that_of_each_component(ours, theirs, shape, bits):
    a, b = ours(8, algebra="H", bits=bits), theirs(8)
    x = torch.randn(shape)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if bits is None else {"rtol": 2e-3, "atol": 5e-3}
    for training in (True, False):
        torch.testing.assert_close(a.train(training)(x), b.train(training)(x), **tolerance)
    if bits is None:
        assert a.state_dict().keys() == b.state_dict().keys()
    else:
        assert isinstance(a.weight, LogTensor)
        a(x).sum().backward()
    assert repr(a).startswith(ours.__name__ + "(8, eps=1e-05")


def correlated(samples, tuples, size, *space, dtype=torch.float32, spread=1.0):
    mix = torch.randn(tuples, size, size, dtype=torch.float64) + 2 * torch.eye(size, dtype=torch.float64)
    t = torch.randn(samples, *space, tuples, size, dtype=torch.float64).unsqueeze(-2) @ mix * spread + 3
    return t.flatten(-3).movedim(-1, 1).to(dtype)


def covariance(y, size):
    """One A x A covariance a tuple, from its definition."""
    t = y.double().movedim(1, -1).reshape(-1, y.shape[1] // size, size)
    t = t - t.mean(0)
    return torch.einsum("sti,stj->tij", t, t) / t.shape[0]


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", ALGEBRAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_covariance_is_the_identity(name, dtype, spread):
    size = ALGEBRAS[name]
    x = correlated(400, 3, size, 4, dtype=dtype, spread=spread)
    layer = AlgebraWhitening(3 * size, algebra=name, dtype=dtype)
    eye = torch.eye(size, dtype=torch.float64).repeat(3, 1, 1)
    y = layer(x)
    torch.testing.assert_close(covariance(y, size), eye, rtol=0, atol=1e-4)
    torch.testing.assert_close(y.mean((0, 2)), torch.zeros(3 * size, dtype=dtype), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half(dtype):
    y = AlgebraWhitening(8, algebra="H")(correlated(400, 2, 4, dtype=dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(covariance(y, 4), torch.eye(4, dtype=torch.float64).repeat(2, 1, 1), rtol=0, atol=3e-2)


def test_whitening_statistics_in_evaluation():
    layer = AlgebraWhitening(8, algebra="H", momentum=None, dtype=torch.float64)
    batches = [correlated(300, 2, 4, dtype=torch.float64) for _ in range(1)] * 3
    for batch in batches:
        layer(batch)
    assert int(layer.num_batches_tracked) == 3
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    y = layer(batches[0])
    unbiased = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1) * (299 / 300)
    torch.testing.assert_close(covariance(y, 4), unbiased, rtol=0, atol=1e-4)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(layer(batches[0][:1]), y[:1])  # a sample does not depend on the others
    untracked = AlgebraWhitening(8, algebra="H", track_running_stats=False, dtype=torch.float64).eval()
    torch.testing.assert_close(covariance(untracked(batches[0]), 4), unbiased * (300 / 299), rtol=0, atol=1e-4)
    layer.reset_parameters()
    assert int(layer.num_batches_tracked) == 0
    assert (layer.running_cov == torch.eye(4)).all()


def test_whitening_gradients():
    layer = AlgebraWhitening(4, algebra="C", dtype=torch.float64)
    x = correlated(6, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).pow(3).sum().backward()
    assert layer.weight.grad.shape == (2, 2, 2)


def test_whitening_of_dead_components():
    layer = AlgebraWhitening(8, algebra="H")
    x = torch.randn(50, 8)
    x[:, 1] = 0
    x[:, 4:] = 0
    x.requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


def test_whitening_with_log_weights():
    layer = AlgebraWhitening(8, algebra="H", bits=8)
    x = correlated(50, 2, 4)
    twin = lognet.unwrap(copy.deepcopy(layer))
    torch.testing.assert_close(layer(x), twin(x))
    assert "algebra=H, bits=8" in repr(layer)
    layer.reset_parameters()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AlgebraBatchNorm2d(6, algebra="H"), "num_features=6 must be a positive multiple of 4"),
        (
            lambda: AlgebraBatchNorm2d(8, algebra="H")(torch.ones(2, 4, 3, 3)),
            r"input must have num_features=8 \(2 tuples of 4\) in dimension 1, got \(2, 4, 3, 3\)",
        ),
        (lambda: AlgebraWhitening(6, algebra="H"), "num_features=6 must be a positive multiple of 4"),
        (lambda: AlgebraWhitening(8, algebra="H")(torch.ones(2, 4)), r"input must be \(N, 8, \*\)"),
        (lambda: AlgebraWhitening(8, algebra="H")(torch.ones(1, 8)), "more than one value"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
