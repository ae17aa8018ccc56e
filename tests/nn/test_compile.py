"""torch.compile of layers, forward and backward, without graph breaks."""

import copy

import pytest
import torch

from lognet.nn import (
    PHMLSTM,
    AlgebraConv2d,
    AlgebraGRU,
    AlgebraLinear,
    AlgebraLSTM,
    AlgebraMultiheadAttention,
    KroneckerLinear,
    PHMLinear,
    Word2KetXSEmbedding,
)


@pytest.mark.traces
@pytest.mark.filterwarnings("ignore")  # what torch's own compiler warns of
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (AlgebraLinear(8, 12, algebra="H"), (5, 8)),
        (AlgebraLinear(8, 12, algebra="M2R"), (5, 8)),
        (AlgebraLinear(8, 12, algebra="M2R", bits=8), (5, 8)),
        (AlgebraLinear(8, 12, algebra="D4"), (5, 8)),
        (AlgebraConv2d(8, 8, 3, padding=1, algebra="M2R"), (2, 8, 4, 4)),
    ],
)
def test_layers_compile(layer, shape):
    torch._dynamo.reset()
    twin = copy.deepcopy(layer)
    x = torch.randn(shape)
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    expected = twin(x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(layer.weight.grad, twin.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.traces
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda bits: AlgebraConv2d(8, 8, 3, algebra="H", bits=bits), (2, 8, 4, 4)),
        (lambda bits: AlgebraGRU(4, 8, algebra="M2R", bits=bits), (2, 2, 4)),
        pytest.param(lambda bits: AlgebraLSTM(4, 8, algebra="H", bits=bits), (2, 2, 4), marks=pytest.mark.slow),
        (lambda bits: AlgebraLSTM(4, 8, proj_size=4, algebra="H", bits=bits), (2, 2, 4)),
        (lambda bits: AlgebraMultiheadAttention(8, 2, algebra="H", bits=bits, batch_first=True), (2, 3, 8)),
        (lambda bits: PHMLinear(8, 12, 4, bits=bits), (5, 8)),
        (lambda bits: PHMLSTM(4, 8, 2, bits=bits), (2, 2, 4)),
        (lambda bits: KroneckerLinear(8, 12, 3, bits=bits), (5, 8)),
        (lambda bits: Word2KetXSEmbedding(50, 8, 2, 2, bits=bits), None),
    ],
)
def test_whole_layers_compile_with_float_and_log_weights(make, shape, bits):
    torch._dynamo.reset()
    layer = make(bits)
    x = torch.tensor([1, 49, 3]) if shape is None else torch.randn(shape)
    inputs = (x, x, x) if isinstance(layer, AlgebraMultiheadAttention) else (x,)
    results = []
    for forward in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        layer.zero_grad()
        out = forward(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
