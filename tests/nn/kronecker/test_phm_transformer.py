"""Attention and Transformers against torch's own with the same dense weights."""

import copy

import pytest
import torch
from oracles import kronecker as oracle
from torch import nn

import lognet
from lognet.nn import (
    KroneckerMultiheadAttention,
    PHMLinear,
    PHMMultiheadAttention,
    PHMTransformer,
    PHMTransformerDecoder,
    PHMTransformerDecoderLayer,
    PHMTransformerEncoder,
    PHMTransformerEncoderLayer,
)


def torch_attention(ours):
    """torch's attention with the dense weights of ours, still connected to our parameters."""
    bias = ours.out_proj.bias is not None
    twin = nn.MultiheadAttention(
        ours.embed_dim, ours.num_heads, 0.0, bias, kdim=ours.kdim, vdim=ours.vdim, batch_first=ours.batch_first
    ).double()

    def call(*a, **k):
        if ours.fused:
            projections = ours.qkv_proj.weight.chunk(3)
            biases = [ours.qkv_proj.bias]
        else:
            parts = (ours.q_proj, ours.k_proj, ours.v_proj)
            projections, biases = [p.weight for p in parts], [p.bias for p in parts]
        weights = {"out_proj.weight": ours.out_proj.weight}
        if ours.kdim == ours.vdim == ours.embed_dim:
            weights["in_proj_weight"] = torch.cat(list(projections))
        else:
            weights |= {f"{n}_proj_weight": w for n, w in zip("qkv", projections, strict=True)}
        if bias:
            weights |= {"in_proj_bias": torch.cat(biases), "out_proj.bias": ours.out_proj.bias}
        return torch.func.functional_call(twin, weights, a, k)

    return call


MAKERS = {
    "phm": lambda **k: PHMMultiheadAttention(8, 2, 2, dtype=torch.float64, **k),
    "phm, fused": lambda **k: PHMMultiheadAttention(8, 2, 4, fused=True, dtype=torch.float64, **k),
    "phm, other sizes": lambda **k: PHMMultiheadAttention(8, 4, 2, kdim=6, vdim=4, dtype=torch.float64, **k),
    "kronecker": lambda **k: KroneckerMultiheadAttention(8, 2, 3, dtype=torch.float64, **k),
}
CAUSAL = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_as_torch(name, batch_first):
    ours = MAKERS[name](batch_first=batch_first, bias=name != "kronecker")
    twin = torch_attention(ours)
    sizes = (8, ours.kdim, ours.vdim)
    for options in (
        {},
        {"attn_mask": CAUSAL},
        {"attn_mask": CAUSAL, "is_causal": True},
        {"attn_mask": CAUSAL < 0},
        {"key_padding_mask": PADDING},
        {"key_padding_mask": PADDING.double() * -7.0, "attn_mask": CAUSAL},
        {"attn_mask": torch.randn(3 * ours.num_heads, 5, 5, dtype=torch.float64)},
        {"average_attn_weights": False},
    ):
        q, k, v = (torch.randn((3, 5, s) if batch_first else (5, 3, s), dtype=torch.float64) for s in sizes)
        inputs = (q, q, q) if sizes == (8, 8, 8) and "average_attn_weights" in options else (q, k, v)
        for need_weights in (True, False):
            out, weights = ours(*inputs, need_weights=need_weights, **options)
            expected, expected_weights = twin(*inputs, need_weights=need_weights, **options)
            torch.testing.assert_close(out, expected)
            assert (weights is None) == (expected_weights is None)
            if weights is not None:
                torch.testing.assert_close(weights, expected_weights)
        grads = [torch.autograd.grad(o.square().sum(), list(ours.parameters())) for o in (out, expected)]
        torch.testing.assert_close(*grads)


def test_shared_key_and_value_when_fused():
    ours = PHMMultiheadAttention(8, 2, 4, fused=True, dtype=torch.float64)
    q, k = torch.randn(5, 3, 8, dtype=torch.float64), torch.randn(7, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(q, k, k), torch_attention(ours)(q, k, k))


@pytest.mark.parametrize("name", MAKERS)
def test_unbatched(name):
    ours = MAKERS[name]()
    q, k, v = (torch.randn(5, s, dtype=torch.float64) for s in (8, ours.kdim, ours.vdim))
    torch.testing.assert_close(
        ours(q, k, v, attn_mask=CAUSAL < 0, key_padding_mask=PADDING[1]),
        torch_attention(ours)(q, k, v, attn_mask=CAUSAL < 0, key_padding_mask=PADDING[1]),
    )


def densify(module):
    """A copy with torch's own attention and linear layers of the same weights."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PHMLinear):
                linear = nn.Linear(child.in_features, child.out_features, child.bias is not None).double()
                values = {"weight": child.weight} | ({} if child.bias is None else {"bias": child.bias})
                linear.load_state_dict(values)
                setattr(parent, name, linear)
            elif isinstance(child, PHMMultiheadAttention):
                twin = nn.MultiheadAttention(
                    child.embed_dim, child.num_heads, child.dropout, batch_first=child.batch_first
                ).double()
                values = {
                    "in_proj_weight": torch.cat([p.weight for p in (child.q_proj, child.k_proj, child.v_proj)]),
                    "in_proj_bias": torch.cat([p.bias for p in (child.q_proj, child.k_proj, child.v_proj)]),
                    "out_proj.weight": child.out_proj.weight,
                    "out_proj.bias": child.out_proj.bias,
                }
                twin.load_state_dict(values)
                setattr(parent, name, twin)
    return module


OPTIONS = {"dim_feedforward": 12, "dropout": 0.0, "dtype": torch.float64}


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_transformer_as_torch(norm_first, batch_first, training):
    ours = PHMTransformer(8, 2, 2, 2, 2, norm_first=norm_first, batch_first=batch_first, **OPTIONS).train(training)
    twin = densify(ours)
    assert not any(isinstance(m, PHMLinear) for m in twin.modules())
    source, target = torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)
    if not batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    masks = {"tgt_mask": CAUSAL, "tgt_is_causal": True, "src_key_padding_mask": torch.zeros(3, 4, dtype=torch.bool)}
    torch.testing.assert_close(ours(source, target, **masks), twin(source, target, **masks))


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (PHMTransformerEncoderLayer(8, 2, 2, activation="gelu", **OPTIONS), 1),
        (PHMTransformerDecoderLayer(8, 2, 2, **OPTIONS), 2),
        (PHMTransformerEncoder(2, 8, 2, 2, norm=nn.LayerNorm(8, dtype=torch.float64), **OPTIONS), 1),
        (PHMTransformerDecoder(2, 8, 2, 2, **OPTIONS), 2),
    ],
    ids=lambda v: type(v).__name__,
)
def test_parts_as_torch(module, inputs):
    xs = [torch.randn(5, 3, 8, dtype=torch.float64) for _ in range(inputs)]
    for training in (True, False):
        module.train(training)
        torch.testing.assert_close(module(*xs), densify(module)(*xs))
        with torch.no_grad():
            torch.testing.assert_close(module(*xs), densify(module)(*xs))


def test_layers_of_a_stack_start_apart():
    encoder = PHMTransformerEncoder(2, 8, 2, 2, **OPTIONS)
    assert not torch.equal(encoder.layers[0].linear1.S, encoder.layers[1].linear1.S)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts():
    dense, n = count(nn.Transformer(64, 4, 2, 2, 128, batch_first=True)), 4
    matrices = 2 * (4 + 8) * 64 * 64 + 4 * 2 * 64 * 128
    layers = 2 * (4 + 8) + 4 * 2
    assert count(PHMTransformer(64, 4, n, 2, 2, 128)) == dense - matrices + matrices // n + layers * n**3
    assert count(PHMTransformer(64, 4, n, 2, 2, 128, share_rule=True)) == dense - matrices + matrices // n + n**3
    assert count(PHMTransformer(64, 4, 1, 2, 2, 128)) == dense
    assert count(PHMTransformerEncoderLayer(512, 8, 16, 2048, bias=False)) == 4 * 20_480 + 2 * 69_632 + 2 * 512


def test_shared_hamilton_rule():
    model = PHMTransformer(8, 2, 4, 1, 2, 12, rule="hamilton", share_rule=True)
    rules = {id(m.A) for m in model.modules() if isinstance(m, PHMLinear)}
    assert len(rules) == 1
    assert len({id(m.A) for m in lognet.wrap(model).modules() if isinstance(m, PHMLinear)}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_factors(dtype):
    model = PHMTransformer(8, 2, 2, 1, 1, 12, dropout=0.0, bits=10, dtype=dtype)
    assert all(isinstance(p, lognet.LogTensor) for p in model.parameters())
    source, target = torch.randn(4, 3, 8, dtype=dtype), torch.randn(5, 3, 8, dtype=dtype)
    oracle.check_log_twin(model, lambda m: m(source, target))
    attention = PHMMultiheadAttention(128, 4, 4, bits=8, dtype=dtype)
    x = torch.randn(2, 1, 128, dtype=dtype)
    oracle.check_log_twin(attention, lambda m: m(x, x, x, need_weights=False)[0], limit=8 * x.numel() * dtype.itemsize)
    for fused in (True, False):
        attention = PHMMultiheadAttention(8, 2, 2, fused=fused, bits=8, dtype=dtype)
        oracle.check_log_twin(attention, lambda m: m(source, source, source)[0])


def test_training_with_dropout_and_state_dict():
    model = PHMTransformer(8, 2, 2, 1, 1, 12, dropout=0.5)
    other = PHMTransformer(8, 2, 2, 1, 1, 12, dropout=0.5)
    other.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 8)
    assert not torch.equal(model(x, x), model(x, x))
    assert torch.equal(model.eval()(x, x), other.eval()(x, x))
    assert torch.equal(copy.deepcopy(model)(x, x), model(x, x))


def test_compile():
    layer = PHMTransformerEncoderLayer(8, 2, 2, 12, dropout=0.0)
    x = torch.randn(4, 3, 8)
    torch.testing.assert_close(oracle.compiled(layer)(x), layer(x))


def test_errors():
    with pytest.raises(ValueError, match="n=3 must divide embed_dim=8 and kdim=8 and vdim=8"):
        PHMMultiheadAttention(8, 2, 3)
    with pytest.raises(ValueError, match="num_heads=3 must divide embed_dim=8"):
        PHMMultiheadAttention(8, 3, 2)
    with pytest.raises(ValueError, match="fused=True needs kdim = vdim = embed_dim=8, got 4 and 8"):
        PHMMultiheadAttention(8, 2, 2, kdim=4, fused=True)
    with pytest.raises(ValueError, match="n=4 must divide dim_feedforward=10"):
        PHMTransformer(8, 2, 4, dim_feedforward=10)
    with pytest.raises(ValueError, match="n=4 must divide dim_feedforward=10"):
        PHMTransformerDecoderLayer(8, 2, 4, dim_feedforward=10)
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        PHMTransformerEncoder(0, 8, 2, 2)
    attention, x = PHMMultiheadAttention(8, 2, 2), torch.zeros(5, 3, 8)
    with pytest.raises(ValueError, match="is_causal=True needs attn_mask"):
        attention(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match="query, key and value must all have 2"):
        attention(x, x[0], x[0])


def test_lengths_and_batches_that_differ():
    attention, q = PHMMultiheadAttention(8, 2, 2), torch.randn(5, 3, 8)
    for k, v in ((torch.randn(4, 3, 8), torch.randn(6, 3, 8)), (torch.randn(4, 2, 8), torch.randn(4, 2, 8))):
        with pytest.raises(ValueError, match="key and value must have one length, and query, key and value one batch"):
            attention(q, k, v)
    attention(q, torch.randn(4, 3, 8), torch.randn(4, 3, 8))
    attention(q[:, 0], torch.randn(4, 8), torch.randn(4, 8))
