"""Conversion of existing models."""

import re

import pytest
import torch
from oracles import algebra as oracle
from torch import nn
from torch.nn.utils import prune

import lognet
from lognet import LogTensor, algebraize
from lognet.convert.algebraize import project
from lognet.nn import (
    Algebra,
    AlgebraConv2d,
    AlgebraGRU,
    AlgebraLinear,
    AlgebraMultiheadAttention,
    PHMLinear,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_projection_is_least_squares(name, dtype):
    a = oracle.SIZES[name]
    dense = torch.randn(a, 2 * a, dtype=dtype)
    basis = [oracle.dense(name, e.view(1, 2, a)).flatten() for e in torch.eye(2 * a, dtype=torch.float64)]
    best = torch.linalg.lstsq(torch.stack(basis, 1), dense.double().flatten()).solution.view(1, 2, a)
    torch.testing.assert_close(project(dense, name).double(), best, rtol=1e-5, atol=1e-5)
    weight = torch.randn(2, 3, 2, 2, a, dtype=dtype)  # and it inverts the expansion
    torch.testing.assert_close(project(Algebra(name).expand(weight), name), weight)


# each with sizes that fit, and an input
LAYERS = [
    (lambda: nn.Linear(8, 12), (3, 8)),
    (lambda: nn.Linear(8, 12, bias=False, dtype=torch.float64), (3, 8)),
    (lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1, padding_mode="reflect"), (2, 8, 6, 6)),
    (lambda: nn.Conv2d(8, 8, 3, padding="same", groups=2, bias=False), (2, 8, 6, 6)),
    (lambda: nn.ConvTranspose2d(8, 8, 3, stride=2, output_padding=1, groups=2), (2, 8, 5, 5)),
    (lambda: nn.GRU(8, 12, 2, batch_first=True, bidirectional=True), (3, 5, 8)),
    (lambda: nn.LSTM(8, 12, bias=False), (5, 3, 8)),
    (lambda: nn.GRUCell(8, 12), (3, 8)),
    (lambda: nn.LSTM(8, 12, 2, proj_size=8), (5, 3, 8)),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("name", ["R", "H", "M2R"])
def test_layers_that_are_over_the_algebra_already_stay_the_same_function(make, shape, name):
    layer = make()
    with torch.no_grad():  # make the weight one that the algebra has
        for n, p in layer.named_parameters():
            if n.startswith("weight"):
                transposed = getattr(layer, "transposed", False)
                w = project(p, name, transposed)
                w = w.transpose(0, 1) if transposed else w
                p.copy_(Algebra(name).expand(w).transpose(0, 1) if transposed else Algebra(name).expand(w))
    x = torch.randn(shape, dtype=next(layer.parameters()).dtype)
    new, report = algebraize(layer, name)
    assert replaced(report) == [""]
    ours, theirs = new(x), layer(x)
    if isinstance(ours, tuple):
        ours, theirs = ours[0], theirs[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def replaced(report):
    return [name for layer in report.layers for name in layer.names]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.conv = nn.Conv2d(16, 16, 3)
        self.rnn = nn.GRU(16, 16)
        self.table = nn.Embedding(10, 16)
        self.tied = nn.Linear(16, 10, bias=False)
        self.tied.weight = self.table.weight
        self.attention = nn.MultiheadAttention(16, 2)
        self.again = nn.Linear(16, 16)
        self.alias = self.again
        self.head = nn.Linear(16, 16)


@pytest.mark.parametrize("bits", [None, 8])
def test_report(bits):
    net = Net().eval()
    net.conv.bias.requires_grad_(False)
    model, report = algebraize(net, "M2R", exclude=["head"], bits=bits)
    assert model is net
    assert replaced(report) == ["conv", "rnn", "attention", "again"]
    assert [layer.became for layer in report.layers[:2]] == ["AlgebraConv2d", "AlgebraGRU"]
    assert all(layer.after < layer.before for layer in report.layers)
    assert isinstance(net.conv, AlgebraConv2d)
    assert isinstance(net.rnn, AlgebraGRU)
    assert isinstance(net.again, AlgebraLinear)
    assert net.alias is net.again
    assert not net.conv.training
    assert not net.conv.bias.requires_grad
    assert isinstance(net.conv.weight, LogTensor) == (bits == 8)
    assert report.kept == {
        "stem": "in_channels=3 must be a positive multiple of 4, the tuple size of M2R; nearest is 4",
        "table": "the parameters of Embedding itself have no counterpart over an algebra",
        "tied": "it shares a parameter with another module",
        "head": "excluded",
    }
    assert report.after == sum(p.numel() for p in net.parameters()) < report.before
    assert "kept head: excluded" in str(report)


@pytest.mark.parametrize("bits", [None, 12])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("H", {}),
        ("M2R", {"bias": False, "batch_first": True}),
        ("C", {"add_bias_kv": True, "add_zero_attn": True}),
        ("H", {"kdim": 8, "vdim": 12}),
    ],
)
def test_attention_that_is_over_the_algebra_already_stays_the_same_function(name, options, bits):
    layer = nn.MultiheadAttention(16, 2, **options, dtype=torch.float64)
    over = lambda p: Algebra(name).expand(project(p, name))
    with torch.no_grad():
        for n, p in layer.named_parameters():
            if n == "in_proj_weight":
                p.copy_(torch.cat([over(q) for q in p.chunk(3)]))
            elif n.endswith("weight"):
                p.copy_(over(p))
            else:
                p.normal_(std=0.1)
    layer.out_proj.weight.requires_grad_(False)
    new = algebraize(nn.Sequential(layer), name, bits=bits)[0][0]
    assert isinstance(new, AlgebraMultiheadAttention)
    assert [n for n, p in new.named_parameters() if not p.requires_grad] == ["out_proj.weight"]
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    key, value = (torch.randn(3, 5, options.get(side, 16), dtype=torch.float64) for side in ("kdim", "vdim"))
    close = {"rtol": 1e-10, "atol": 1e-10} if bits is None else {"rtol": 0.02, "atol": 0.02}
    for ours, theirs in zip(new(x, key, value), layer(x, key, value), strict=True):
        torch.testing.assert_close(ours, theirs, **close)


def hooked(layer, hook=lambda module, args: None):
    layer.register_forward_pre_hook(hook)
    return layer


def with_gradient_hook(layer):
    layer.weight.register_hook(lambda grad: grad)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.utils.weight_norm(nn.Linear(8, 8)), r"it has hooks \(WeightNorm\), which know the layer as it is"),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(8, 8, 3)), r"it has hooks \(.*SpectralNorm.*\)"),
        (lambda: prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5), r"it has hooks \(L1Unstructured\)"),
        (lambda: hooked(nn.Linear(8, 8)), r"it has hooks \(<lambda>\).*add them after converting"),
        (lambda: with_gradient_hook(nn.Linear(8, 8)), "it has hooks"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), "its weight is parametrized"),
        (lambda: nn.utils.parametrizations.orthogonal(nn.GRUCell(8, 8), "weight_hh"), "its weight_hh is parametrized"),
        (lambda: nn.LazyLinear(8), "LazyLinear is not initialised yet; run it once on a sample first"),
        (lambda: nn.LazyConv2d(8, 3), "LazyConv2d is not initialised yet"),
        (lambda: nn.RNN(8, 8), "the parameters of RNN itself have no counterpart"),
        (lambda: nn.RNNCell(8, 8), "the parameters of RNNCell itself have no counterpart"),
        (lambda: nn.Embedding(8, 8), "the parameters of Embedding itself have no counterpart"),
        (lambda: nn.EmbeddingBag(8, 8), "the parameters of EmbeddingBag itself have no counterpart"),
        (lambda: nn.Bilinear(8, 8, 8), "the parameters of Bilinear itself have no counterpart"),
        (lambda: PHMLinear(8, 8, 2), "the parameters of PHMLinear itself have no counterpart"),
        (
            lambda: nn.Conv2d(8, 8, 3, groups=8),
            "groups=8 must divide the tuples of in_channels=8 .* 2 and 2 .* groups=2",
        ),
        (lambda: nn.MultiheadAttention(8, 4), "num_heads=4 must divide the 2 tuples of embed_dim=8"),
        (lambda: nn.MultiheadAttention(8, 2, kdim=6), "kdim=6 must be a positive multiple of 4"),
    ],
)
def test_layers_that_stay(make, why):
    layer = make()
    model = nn.Sequential(layer, nn.Linear(8, 8))
    _, report = algebraize(model, "H")
    assert model[0] is layer
    assert list(report.kept) == ["0"]
    assert re.match(why, report.kept["0"]), report.kept["0"]
    assert replaced(report) == ["1"]
    assert report.after < report.before


def test_a_module_with_parameters_of_its_own_is_named_and_its_layers_are_converted():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(5, 8))
            self.layer = nn.Linear(8, 8)

    _, report = algebraize(Positions(), "H")
    assert report.kept == {"": "the parameters of Positions itself have no counterpart over an algebra"}
    assert "kept (the model): the parameters of Positions" in str(report)
    assert replaced(report) == ["layer"]
    nn.utils.parametrizations.weight_norm(model := Positions(), "table")
    _, report = algebraize(model, "H")
    assert report.kept == {"": "its table is parametrized"}
    assert replaced(report) == ["layer"]


def test_excluding_a_part_of_a_layer_excludes_the_layer():
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2))
    assert algebraize(model, "H", exclude=["0.out_proj"])[1].kept == {"0": "excluded"}


def test_depthwise_convolutions_where_their_groups_hold_whole_tuples():
    _, report = algebraize(nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.Conv2d(16, 16, 3, groups=16)), "C")
    assert replaced(report) == ["0"]
    assert list(report.kept) == ["1"]
    assert algebraize(nn.Conv2d(8, 8, 3, groups=8), "R")[0].groups == 8


def test_other_obstacles():
    encoder = nn.TransformerEncoderLayer(16, 2, 32)
    assert (
        algebraize(encoder, "H")[1].kept["linear1"] == "TransformerEncoderLayer reads the weights of its layers itself"
    )
    _, over = algebraize(nn.Sequential(AlgebraLinear(8, 8, algebra="C")), "H")
    assert over.kept == {"0": "AlgebraLinear is over C already"}
    pair = nn.Linear(8, 8, dtype=torch.complex64)
    assert "torch.complex64, not real" in algebraize(nn.Sequential(pair), "H")[1].kept["0"]
    fresh, _ = algebraize(nn.Sequential(nn.Linear(8, 8)), "H", init="glorot")
    assert (fresh[0].bias == 0).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: algebraize(nn.Linear(4, 4), "Q"), ValueError, "'Q' is not known"),
        (lambda: algebraize(nn.Linear(4, 4), "H", init="zeros"), ValueError, "init must be one of 'project', 'glorot'"),
        (lambda: algebraize(nn.Linear(4, 4), "H", bits=99), ValueError, "bits must be from 2 to 16, got 99"),
        (lambda: algebraize("model", "H"), TypeError, "model must be a torch.nn.Module, got str"),
        (lambda: algebraize(lognet.wrap(nn.Linear(4, 4)), "H"), ValueError, "before lognet.wrap"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
