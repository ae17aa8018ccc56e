"""torch.compile of layers, forward and backward, without graph breaks."""

import pytest
import torch
from oracles.compiler import outcomes

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
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda bits: AlgebraLinear(8, 12, algebra="H", bits=bits), (5, 8)),
        (lambda bits: AlgebraLinear(8, 12, algebra="M2R", bits=bits), (5, 8)),
        (lambda bits: AlgebraLinear(8, 12, algebra="D4", bits=bits), (5, 8)),
        (lambda bits: AlgebraConv2d(8, 8, 3, padding=1, algebra="M2R", bits=bits), (2, 8, 4, 4)),
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
    forwards = (layer, torch.compile(layer, fullgraph=True, backend="aot_eager"))
    (out, *grads), (compiled_out, *compiled_grads) = outcomes(layer, forwards, *inputs)
    torch.testing.assert_close(compiled_out, out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled_grads, grads, rtol=1e-4, atol=1e-4)
