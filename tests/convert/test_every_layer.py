"""``Layer(bits=8)`` is ``wrap(Layer(), bits=8)``, to the bit, for every layer that takes `bits`."""

import inspect

import pytest
import torch
from oracles.same import assert_same

import lognet
from lognet import LogTensor, nn
from lognet.convert import algebraize

ATTENTION = {"embed_dim": 8, "num_heads": 2}
GRU = {"input_size": 8, "hidden_size": 8, "num_layers": 2, "bidirectional": True}
CONV = {"in_channels": 8, "out_channels": 8, "kernel_size": 3}
OVER = {"algebra": "H"}
LAYERS = [
    *((getattr(nn, f"AlgebraConv{d}d"), CONV | OVER) for d in (1, 2, 3)),
    *((getattr(nn, f"AlgebraConvTranspose{d}d"), CONV | OVER) for d in (1, 2, 3)),
    *((getattr(nn, f"AlgebraBatchNorm{d}d"), {"num_features": 8} | OVER) for d in (1, 2, 3)),
    (nn.AlgebraWhitening, {"num_features": 8} | OVER),
    (nn.AlgebraEmbedding, {"num_embeddings": 5, "embedding_dim": 8} | OVER),
    (nn.AlgebraEmbedding, {"num_embeddings": 5, "embedding_dim": 8, "padding_idx": 2} | OVER),
    (nn.AlgebraLinear, {"in_features": 8, "out_features": 8} | OVER),
    (nn.AlgebraGRU, GRU | OVER),
    (nn.AlgebraLSTM, GRU | {"proj_size": 4} | OVER),
    (nn.AlgebraGRUCell, {"input_size": 8, "hidden_size": 8} | OVER),
    (nn.AlgebraLSTMCell, {"input_size": 8, "hidden_size": 8, "bias": False} | OVER),
    (nn.AlgebraMultiheadAttention, ATTENTION | {"add_bias_kv": True} | OVER),
    (nn.TupleLift, {"in_features": 3, "layers": 2} | OVER),
    (nn.PHMLinear, {"in_features": 8, "out_features": 8, "n": 4}),
    (nn.PHMLinear, {"in_features": 8, "out_features": 8, "n": 4, "rule": "hamilton"}),
    (nn.PHMLinear, {"in_features": 8, "out_features": 8, "n": 4, "rule": "hamilton", "train_rule": False}),
    (nn.PHMConv1d, CONV | {"n": 4, "rule": "hamilton"}),
    *((nn.PHMConv2d, CONV | {"n": 4, "rule": rule}) for rule in (None, "hamilton")),
    (nn.PHMGRU, GRU | {"n": 4, "rule": "hamilton", "share_rule": True}),
    (nn.PHMLSTM, GRU | {"n": 4, "proj_size": 4}),
    (nn.PHMLSTM, GRU | {"n": 4, "rule": "hamilton", "share_rule": True}),
    *((nn.PHMMultiheadAttention, ATTENTION | {"n": 4, "rule": "hamilton", "share_rule": s}) for s in (True, False)),
    (nn.KroneckerLinear, {"in_features": 8, "out_features": 8, "rank": 2}),
    (nn.KroneckerEmbedding, {"num_embeddings": 9, "embedding_dim": 8, "rank": 2, "padding_idx": 0}),
    (nn.KroneckerMultiheadAttention, ATTENTION | {"rank": 2, "add_bias_kv": True}),
    (nn.KroneckerGRU, GRU | {"rank": 2}),
    (nn.KroneckerLSTM, GRU | {"rank": 2}),
    (nn.LowRankLinear, {"in_features": 8, "out_features": 8, "rank": 2}),
    (nn.LowRankEmbedding, {"num_embeddings": 9, "embedding_dim": 8, "rank": 2}),
    (nn.Word2KetEmbedding, {"num_embeddings": 9, "embedding_dim": 9, "order": 2, "rank": 2}),
    (nn.Word2KetXSEmbedding, {"num_embeddings": 9, "embedding_dim": 9, "order": 2, "rank": 2}),
]


def made(kind, arguments, bits=None):
    torch.manual_seed(0)
    return kind(**arguments, bits=bits)


def test_every_layer_that_takes_bits_is_here():
    takes = {
        kind
        for name in nn.__all__
        if inspect.isclass(kind := getattr(nn, name)) and "bits" in inspect.signature(kind).parameters
    }
    assert {kind for kind, _ in LAYERS} == takes


@pytest.mark.parametrize(("kind", "arguments"), LAYERS)
@pytest.mark.parametrize("bits", [3, 8, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_are_those_of_wrap(kind, arguments, bits, dtype):
    arguments = arguments if kind is nn.TupleLift else arguments | {"dtype": dtype}
    layer, wrapped = made(kind, arguments, bits), lognet.wrap(made(kind, arguments), bits)
    theirs = dict(wrapped.named_parameters(remove_duplicate=False))
    ours = dict(layer.named_parameters(remove_duplicate=False))
    assert ours.keys() == theirs.keys()
    assert len(set(ours.values())) == len(set(theirs.values()))  # what is tied
    for name, p in ours.items():
        assert isinstance(p, LogTensor)
        assert p.requires_grad == theirs[name].requires_grad
        assert_same(p.detach(), theirs[name].detach())  # rungs, signs, scale and mask
    assert all(part.bits == bits for part in layer.modules() if hasattr(part, "bits"))


def test_biases_of_one_layer_do_not_share_their_signs():
    layer = nn.AlgebraGRU(8, 64, algebra="R", bits=8)
    assert not torch.equal(layer.bias_ih_l0.signs, layer.bias_hh_l0.signs)


def test_a_converted_layer_has_the_bits_of_wrap():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.MultiheadAttention(8, 2))
    with torch.no_grad():
        model[0].bias.zero_()
    floats, few = (algebraize(torch.nn.Sequential(*model), "H", bits=bits)[0] for bits in (None, 8))
    for ours, theirs in zip(few, floats, strict=True):
        lognet.wrap(theirs, bits=8)
        assert ours.bits == 8
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_same(p.detach(), q.detach())
