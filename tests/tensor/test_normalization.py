"""Normalisation by LogTensors, with and without a graph."""

import pytest
import torch
import torch.nn.functional as F

import lognet
from lognet import LogTensor

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
CASES = {
    "layer_norm": lambda x, w, b: F.layer_norm(x, (6,), w, b),
    "layer_norm by names": lambda x, w, b: F.layer_norm(input=x, normalized_shape=[6], weight=w, bias=b, eps=1e-3),
    "layer_norm, gains alone": lambda x, w, b: F.layer_norm(x, (6,), w),
    "torch.layer_norm": lambda x, w, b: torch.layer_norm(x, (6,), w, b),
    "group_norm": lambda x, w, b: F.group_norm(x.mT.reshape(1, 6, 4), 3, w, b),
    "torch.group_norm": lambda x, w, b: torch.group_norm(x.mT.reshape(1, 6, 4), 2, w, b),
    "rms_norm": lambda x, w, b: F.rms_norm(x, (6,), w),
    "torch.rms_norm": lambda x, w, b: torch.rms_norm(x, (6,), w),
    "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
}


def numbers(dtype):
    w, b = (LogTensor.from_float(torch.rand(6, dtype=dtype) + 0.5).requires_grad_() for _ in range(2))
    return torch.randn(4, 6, dtype=dtype), w, b


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_they_are_those_of_the_decoded_gains(name, dtype):
    x, w, b = numbers(dtype)
    expected = CASES[name](x, w.dequantize().detach(), b.dequantize().detach())
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert torch.equal(CASES[name](x, w, b).detach(), expected)
    frozen = [t.detach() for t in (w, b)]
    y = CASES[name](x.requires_grad_(), *frozen)
    y.sum().backward()
    assert torch.equal(y.detach(), expected)
    assert x.grad is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_decoded_gains(name, dtype):
    x, w, b = numbers(dtype)
    dense = [t.dequantize().detach().requires_grad_() for t in (w, b)]
    for gains in ((w, b), dense):
        CASES[name](x, *gains).square().sum().backward()
    for ours, theirs in zip((w, b), dense, strict=True):
        assert (ours.grad is None and theirs.grad is None) or torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("layer", [torch.nn.LayerNorm(8), torch.nn.GroupNorm(2, 8), torch.nn.RMSNorm(8)], ids=type)
def test_without_a_graph_no_operation_meets_a_log_tensor(layer, monkeypatch):
    layer = lognet.wrap(layer)
    met = []
    monkeypatch.setattr(
        LogTensor, "__torch_dispatch__", classmethod(lambda cls, func, types, args=(), kwargs=None: met.append(func))
    )
    with torch.no_grad():
        assert layer(torch.randn(3, 8)).shape == (3, 8)
    assert not met
