"""Conversion of existing models."""

import pytest
import torch
from oracles import algebra as oracle
from torch import nn

import lognet
from lognet import LogTensor
from lognet.nn import Algebra, AlgebraConv2d, AlgebraGRU, AlgebraLinear, algebraize
from lognet.nn.algebraize import project


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
]


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
    report = algebraize(layer, name)
    assert list(report.replaced) == ["(the model)"]
    ours, theirs = report.model(x), layer(x)
    if isinstance(ours, tuple):
        ours, theirs = ours[0], theirs[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


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
    report = algebraize(net, "M2R", skip=["head"], bits=bits)
    assert report.model is net
    assert list(report.replaced) == ["conv", "rnn", "again"]
    assert isinstance(net.conv, AlgebraConv2d)
    assert isinstance(net.rnn, AlgebraGRU)
    assert isinstance(net.again, AlgebraLinear)
    assert net.alias is net.again
    assert not net.conv.training
    assert not net.conv.bias.requires_grad
    assert isinstance(net.conv.weight, LogTensor) == (bits == 8)
    assert report.kept == {
        "stem": "in_channels=3 must be a positive multiple of 4, the tuple size of M2R; nearest is 4",
        "tied": "it shares a parameter with another module",
        "attention.out_proj": "NonDynamicallyQuantizableLinear is not exactly a layer of torch.nn",
        "head": "skipped",
    }
    assert report.parameters[1] == sum(p.numel() for p in net.parameters()) < report.parameters[0]
    assert "kept head: skipped" in str(report)


def test_other_obstacles():
    encoder = nn.TransformerEncoderLayer(16, 2, 32)
    assert algebraize(encoder, "H").kept["linear1"] == "TransformerEncoderLayer reads the weights of its layers itself"
    assert algebraize(nn.LSTM(8, 8, proj_size=4), "H").kept["(the model)"] == "proj_size=4 has no counterpart"
    fresh = algebraize(nn.Sequential(nn.Linear(8, 8)), "H", init="glorot")
    assert (fresh.model[0].bias == 0).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: algebraize(nn.Linear(4, 4), "Q"), ValueError, "'Q' is not known"),
        (lambda: algebraize(nn.Linear(4, 4), "H", init="zeros"), ValueError, "init must be one of 'project', 'glorot'"),
        (lambda: algebraize(nn.Linear(4, 4), "H", skip=["x"]), ValueError, "'x' matches no module"),
        (lambda: algebraize(nn.Linear(4, 4), "H", skip=[3]), TypeError, "fnmatch patterns and module classes, got 3"),
        (lambda: algebraize(lognet.wrap(nn.Linear(4, 4)), "H"), ValueError, "before lognet.wrap"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
