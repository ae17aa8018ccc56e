"""torch.compile of layers, forward and backward, without graph breaks."""

import copy

import pytest
import torch

from lognet.nn import AlgebraConv2d, AlgebraLinear


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
