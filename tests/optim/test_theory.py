import math

import pytest
import torch

from lognet import LogTensor
from lognet.optim import theory

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize(("depth", "paper"), [(50, 0.01), (500, 0.001), (5000, 0.0001)])
def test_the_papers_numbers(depth, paper):
    assert float(f"{theory.largest_lr(depth):.1g}") == paper


def test_limits():
    assert theory.largest_lr(1, 0.0) == pytest.approx(1.0)
    assert theory.largest_lr(7, math.pi / 2) == pytest.approx(0.0, abs=1e-15)
    assert theory.largest_lr(10**9) > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_below_the_bound_the_loss_of_a_deep_linear_network_falls(dtype, wrapped):
    """The update of Theorem 1 on a real network: it holds there, and far above the bound it does not."""
    depth, width = 4, 6
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    x, y = draw(32, width), draw(32, width)
    weights = [draw(width, width) / width**0.5 for _ in range(depth)]

    def loss(ws):
        h = x
        for w in ws:
            h = h @ w
        return (h - y).square().mean()

    ws = [w.requires_grad_() for w in weights]
    first = loss(ws)
    grads = torch.autograd.grad(first, ws)
    make = (lambda t: LogTensor.from_float(t.to(dtype))) if wrapped else (lambda t: t.to(dtype))
    angles = [theory.angle(make(w.detach()), g.to(dtype)) for w, g in zip(ws, grads, strict=True)]
    assert all(0 < a < math.pi / 2 for a in angles)
    bound = theory.largest_lr(depth, max(angles))
    moved = lambda lr: [w - lr * w.abs() * g.sign() for w, g in zip(ws, grads, strict=True)]
    for share in (0.1, 0.5, 0.99):
        assert loss(moved(share * bound)) < first
    assert loss(moved(30 * bound)) > first


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: theory.largest_lr(0), ValueError, "depth must be at least 1, got 0"),
        (lambda: theory.largest_lr(2.0), TypeError, "depth must be an int"),
        (lambda: theory.largest_lr(3, 2.0), ValueError, "angle must be from 0 to pi/2"),
        (lambda: theory.angle(torch.ones(2), torch.ones(3)), ValueError, "same shape"),
        (lambda: theory.angle(torch.zeros(2), torch.ones(2)), ValueError, "no angle"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
