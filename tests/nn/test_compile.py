"""torch.compile of float layers, forward and backward, without graph breaks."""

import copy

import pytest
import torch

from lognet.nn import AlgebraConv2d, AlgebraLinear, AlgebraMultiheadAttention


@pytest.mark.filterwarnings("ignore")  # what torch's own compiler warns of
@pytest.mark.parametrize("name", ["C", "H", "M2R", "M2C", "D4"])
def test_float_layers_compile(name):
    a = {"C": 2, "M2C": 8}.get(name, 4)
    for layer, shape in (
        (AlgebraLinear(2 * a, 3 * a, algebra=name), (5, 2 * a)),
        (AlgebraConv2d(2 * a, 2 * a, 3, padding=1, algebra=name), (2, 2 * a, 4, 4)),
    ):
        torch._dynamo.reset()
        twin = copy.deepcopy(layer)
        x = torch.randn(shape)
        out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
        expected = twin(x)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
        out.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(layer.weight.grad, twin.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_attention_compiles():
    layer = AlgebraMultiheadAttention(16, 2, algebra="M2R")
    x = torch.randn(5, 3, 16)
    torch._dynamo.reset()
    out, _ = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, x, x)
    torch.testing.assert_close(out, layer(x, x, x)[0], rtol=1e-5, atol=1e-5)
