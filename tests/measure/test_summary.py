import torch
from torch import nn

import lognet
from lognet import LogTensor
from lognet.optim import Madam


def test_a_table_with_a_row_for_every_parameter():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    lognet.wrap(model, bits=10, exclude="1")
    optimizer = Madam(model.parameters(), lr=0.05)
    model(torch.randn(16, 8)).square().sum().backward()
    optimizer.step()
    result = lognet.summary(model, optimizer)
    text = str(result)
    assert [layer.name for layer in result.layers] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    first, last = result.layers[0], result.layers[-1]
    assert (first.shape, first.bits, first.float_bytes) == ((4, 8), 10, 128)
    assert first.weight_bytes == 32 + 8 + 4 + 4
    assert (last.bits, last.scale, last.stalled) == (None, None, None)
    assert all(word in text for word in ("0.weight", "4x8", "float", "crossings", "% stalled", "total", "bytes each"))
    assert "crossings" not in str(lognet.summary(model))


def test_ladder_health_is_counted():
    k = torch.tensor([0, 0, 5, 255, 9, 9, 9, 9])
    w = nn.Parameter(LogTensor.from_codes(k, torch.ones(8, dtype=torch.int8), bits=8, scale=2.0))
    module = nn.ParameterList([w])
    layer = lognet.summary(module).layers[0]
    assert (layer.first_rung, layer.last_rung, layer.crossings) == (25.0, 12.5, None)
    assert layer.scale == 2.0
    assert abs(layer.lowest - 2.0 / w.format.range) < 1e-6
    optimizer = Madam([w], w.base_precision, affine=0.0, momentum=0.0, warmup=0, rounding="nearest")
    w.grad = torch.tensor([-1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    optimizer.step()
    layer = lognet.summary(module, optimizer).layers[0]
    assert (layer.crossings, layer.stalled) == (1, 0.0)
    w.grad[0] = -1e-9  # now far below its root mean square: a move rounded to nothing
    optimizer.step()
    assert lognet.summary(module, optimizer).layers[0].stalled == 10.0


def test_models_without_ladders_and_without_parameters():
    assert "float" in str(lognet.summary(nn.Linear(2, 2)))
    assert lognet.summary(nn.ReLU()).layers == []
    assert "total" in str(lognet.summary(nn.ReLU()))
