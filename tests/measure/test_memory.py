import pytest
import torch
from torch import nn

import lognet
from lognet import LogTensor
from lognet.measure.memory import held_bytes
from lognet.optim import Madam


def test_blocks_are_counted_once_and_whole():
    x = torch.zeros(100)
    assert held_bytes(x) == held_bytes(x[:3]) == held_bytes(x, x.view(10, 10), [{"a": x}]) == 400
    linear = nn.Linear(10, 10)
    assert held_bytes(linear) == held_bytes(linear, linear.weight) == 440
    assert (
        held_bytes(linear.parameters()) == held_bytes(set(linear.parameters())) == held_bytes({"name": linear}) == 440
    )
    assert held_bytes(nn.BatchNorm1d(4)) == 4 * 16 + 8


@pytest.mark.parametrize("bits", range(2, 17))
def test_a_wrapped_model_holds_its_bits_and_nothing_else(bits):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(100, 301))
    tensors = list(model.parameters())
    n = sum(p.numel() for p in tensors)
    assert held_bytes(model) == 4 * n
    lognet.wrap(model, bits=bits)
    assert n * (bits + 1) / 8 <= held_bytes(model) <= n * (bits + 1) / 8 + 256 * len(tensors)
    optimizer = Madam(model.parameters())
    assert held_bytes(optimizer) == 0
    for p in model.parameters():
        p.grad = torch.ones(p.shape)
    optimizer.step()
    assert held_bytes(optimizer) == sum(8 * p.numel() + 4 + 8 + 24 for p in tensors)


def test_sizes_reported_by_the_summary_are_those_held():
    model = lognet.wrap(nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30)), bits=10)
    optimizer = Madam(model.parameters())
    model(torch.randn(5, 20)).sum().backward()
    optimizer.step()
    summary = lognet.summary(model, optimizer)
    assert summary.weight_bytes == held_bytes(*model.parameters())
    assert summary.state_bytes == held_bytes(optimizer)
    assert summary.float_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert held_bytes(LogTensor.from_float(torch.randn(8), bits=10)) == 8 + 2 + 1 + 4
