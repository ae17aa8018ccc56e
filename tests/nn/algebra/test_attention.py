"""What is AlgebraMultiheadAttention's own; tests/nn/test_attention.py holds it to torch's answers."""

import copy

import pytest
import torch
from oracles.graph import saved_bytes

import lognet
from lognet.nn import AlgebraMultiheadAttention


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    ours = AlgebraMultiheadAttention(16, 2, algebra="M2R", dtype=torch.float64)
    x = torch.randn(5, 3, 16, dtype=torch.float64)
    expected = ours(x, x, x)[0]
    out, _ = ours.to(dtype)(*[x.to(dtype)] * 3)
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


def test_log_weights():
    layer = AlgebraMultiheadAttention(512, 4, algebra="M2R", bits=8)
    x = torch.randn(2, 1, 512)
    kept, total = saved_bytes(lambda: layer(x, x, x)[0].sum())
    assert kept < layer.q_proj.weight.numel() * 4 / 2
    total.backward()
    twin = lognet.unwrap(copy.deepcopy(layer))
    torch.testing.assert_close(layer(x, x, x)[0], twin(x, x, x)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AlgebraMultiheadAttention(6, 1, algebra="H"), "embed_dim=6 must be a positive multiple of 4"),
        (
            lambda: AlgebraMultiheadAttention(8, 4, algebra="H"),
            "num_heads=4 must divide the 2 tuples of embed_dim=8 .* use num_heads=2, or for these heads a multiple of 16",
        ),
        (lambda: AlgebraMultiheadAttention(8, 0, algebra="H"), "num_heads must be at least 1, got 0"),
        (lambda: AlgebraMultiheadAttention(8, 2, kdim=6, algebra="H"), "kdim=6 must be a positive multiple of 4"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
