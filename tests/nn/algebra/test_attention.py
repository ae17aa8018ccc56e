"""AlgebraMultiheadAttention against torch's with the dense expansion of the projections."""

import copy

import pytest
import torch
from oracles import algebra as oracle
from oracles.graph import saved_bytes

import lognet
from lognet import LogTensor
from lognet.nn import AlgebraMultiheadAttention

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def pair(name, bits=None, **options):
    a = oracle.SIZES[name]
    ours = AlgebraMultiheadAttention(4 * a, 2, **options, algebra=name, bits=bits, dtype=torch.float64)
    theirs = torch.nn.MultiheadAttention(4 * a, 2, **options, dtype=torch.float64)
    value = lambda p: p.dequantize() if isinstance(p, LogTensor) else p
    with torch.no_grad():
        if theirs.bias_k is not None:
            theirs.bias_k.copy_(value(ours.bias_k))
            theirs.bias_v.copy_(value(ours.bias_v))
        weights = [oracle.dense(name, value(p.weight)) for p in (ours.q_proj, ours.k_proj, ours.v_proj)]
        if theirs.in_proj_weight is None:
            for place, w in zip(
                (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight), weights, strict=True
            ):
                place.copy_(w)
        else:
            theirs.in_proj_weight.copy_(torch.cat(weights))
        theirs.in_proj_bias.copy_(torch.cat([value(p.bias) for p in (ours.q_proj, ours.k_proj, ours.v_proj)]))
        theirs.out_proj.weight.copy_(oracle.dense(name, value(ours.out_proj.weight)))
        theirs.out_proj.bias.copy_(value(ours.out_proj.bias))
    return ours, theirs, a


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("bits", [None, 10], ids=["float", "log"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in ("R", "H", "M2R", "M2C", "D3")],
        ("H", {"add_bias_kv": True}),
        ("M2R", {"add_zero_attn": True}),
        ("D3", {"add_bias_kv": True, "add_zero_attn": True}),
    ],
)
def test_equals_the_dense_real_one(name, options, bits, need_weights):
    ours, theirs, a = pair(name, bits, **options)
    x = torch.randn(5, 3, 4 * a, dtype=torch.float64)
    memory = torch.randn(6, 3, 4 * a, dtype=torch.float64)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = True
    causal = torch.ones(5, 6, dtype=torch.bool).triu(2)
    additive = torch.randn(6, 5, 6, dtype=torch.float64)
    for masks in (
        {},
        {"key_padding_mask": padding},
        {"attn_mask": causal},
        {"attn_mask": additive},
        {"attn_mask": causal, "key_padding_mask": padding, "average_attn_weights": False},
    ):
        xs = [x.clone().requires_grad_() for _ in range(2)]
        (out, weights), (expected, real) = (
            m(xs[i], memory, memory, need_weights=need_weights, **masks) for i, m in enumerate((ours, theirs))
        )
        torch.testing.assert_close(out, expected, **CLOSE)
        torch.testing.assert_close(weights, real, **CLOSE) if need_weights else None
        assert (weights is None) == (not need_weights)
        out.pow(2).sum().backward()
        expected.pow(2).sum().backward()
        torch.testing.assert_close(xs[0].grad, xs[1].grad, **CLOSE)
    if ours.bias_k is not None:
        torch.testing.assert_close(ours.bias_k.grad, theirs.bias_k.grad, **CLOSE)
        torch.testing.assert_close(ours.bias_v.grad, theirs.bias_v.grad, **CLOSE)


def test_layouts_and_other_widths():
    ours, theirs, a = pair("H", kdim=8, vdim=12, batch_first=True)
    q, k, v = (torch.randn(3, n, w, dtype=torch.float64) for n, w in ((5, 4 * a), (6, 8), (6, 12)))
    torch.testing.assert_close(ours(q, k, v)[0], theirs(q, k, v)[0], **CLOSE)
    torch.testing.assert_close(ours(q[0], k[0], v[0]), theirs(q[0], k[0], v[0]), **CLOSE)
    x = torch.randn(2, 4, 4 * a, dtype=torch.float64)
    ours, theirs, _ = pair("H", batch_first=True)
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1)
    alone = ours(x, x, x, is_causal=True, need_weights=False)[0]
    torch.testing.assert_close(alone, theirs(x, x, x, attn_mask=mask)[0], **CLOSE)
    dropped = AlgebraMultiheadAttention(8, 2, dropout=0.5, algebra="H").double()
    x = x[..., :8]
    assert not torch.equal(dropped(x, x, x)[0], dropped(x, x, x)[0])
    assert torch.equal(dropped.eval()(x, x, x)[0], dropped(x, x, x)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    ours, theirs, _ = pair("M2R")
    x = torch.randn(5, 3, 16, dtype=torch.float64)
    out, _ = ours.to(dtype)(*[x.to(dtype)] * 3)
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(out.double(), theirs(x, x, x)[0], rtol=tolerance, atol=tolerance)


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
        (
            lambda: AlgebraMultiheadAttention(8, 2, algebra="H")(torch.ones(2, 3, 8), *[torch.ones(2, 3, 4)] * 2),
            "key must have kdim=8 last",
        ),
        (
            lambda: AlgebraMultiheadAttention(8, 2, algebra="H")(torch.ones(2, 3, 8), *[torch.ones(2, 4, 8)] * 2),
            r"of one batch, key and value of one length; their \(batch, length\) are \(3, 2\), \(4, 2\)",
        ),
        (lambda: AlgebraMultiheadAttention(8, 0, algebra="H"), "num_heads must be at least 1, got 0"),
        (lambda: AlgebraMultiheadAttention(8, 2, kdim=6, algebra="H"), "kdim=6 must be a positive multiple of 4"),
        (lambda: AlgebraMultiheadAttention(8, 2, 2.0, algebra="H"), "dropout must be a probability"),
        (lambda: AlgebraMultiheadAttention(8, 2, algebra="H")(*[torch.ones(8)] * 3), "must all be batched"),
        (
            lambda: AlgebraMultiheadAttention(8, 2, algebra="H")(
                *[torch.ones(3, 2, 8)] * 3, attn_mask=torch.ones(2, 3)
            ),
            r"attn_mask must be \(3, 3\) or \(4, 3, 3\)",
        ),
        (
            lambda: AlgebraMultiheadAttention(8, 2, algebra="H")(*[torch.ones(3, 2, 8)] * 3, torch.ones(3, 2)),
            r"key_padding_mask must be \(2, 3\)",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
