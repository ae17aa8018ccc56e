"""What is the factored attention layers' own; tests/nn/test_attention.py holds them to torch's answers."""

import pytest
import torch
from oracles import kronecker as oracle
from torch import nn

import lognet
from lognet.nn import PHMMultiheadAttention


def test_shared_key_and_value_when_fused():
    ours = PHMMultiheadAttention(8, 2, 4, fused=True, dtype=torch.float64)
    q, k = torch.randn(5, 3, 8, dtype=torch.float64), torch.randn(7, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(q, k, k), ours(q, k, k.clone()))
    torch.testing.assert_close(ours(q, q, q), ours(q, q.clone(), q.clone()))


def test_parameter_counts():
    count = lambda module: sum(p.numel() for p in module.parameters())
    assert count(PHMMultiheadAttention(512, 8, 16, bias=False)) == 4 * 20_480
    assert count(PHMMultiheadAttention(512, 8, 16, bias=False, share_rule=True)) == 4 * 20_480 - 3 * 16**3
    assert count(PHMMultiheadAttention(64, 8, 1)) == count(nn.MultiheadAttention(64, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_factors(dtype):
    attention = PHMMultiheadAttention(128, 4, 4, bits=8, dtype=dtype)
    x = torch.randn(2, 1, 128, dtype=dtype)
    oracle.check_log_twin(attention, lambda m: m(x, x, x, need_weights=False)[0], limit=8 * x.numel() * dtype.itemsize)
    x = torch.randn(4, 3, 8, dtype=dtype)
    for options in ({"fused": True}, {}, {"add_bias_kv": True}):
        attention = PHMMultiheadAttention(8, 2, 2, bits=8, dtype=dtype, **options)
        assert all(isinstance(p, lognet.LogTensor) for p in attention.parameters())
        oracle.check_log_twin(attention, lambda m: m(x, x, x)[0])


def test_errors():
    with pytest.raises(ValueError, match="n=3 must divide embed_dim=8 and kdim=8 and vdim=8"):
        PHMMultiheadAttention(8, 2, 3)
    with pytest.raises(ValueError, match="num_heads=3 must divide embed_dim=8; use 2 or 4"):
        PHMMultiheadAttention(8, 3, 2)
    with pytest.raises(ValueError, match="fused=True needs kdim = vdim = embed_dim=8, got 4 and 8"):
        PHMMultiheadAttention(8, 2, 2, kdim=4, fused=True)
