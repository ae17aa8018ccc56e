"""Arrays and shared memory."""

import numpy as np
import pytest
import torch
from torch import nn

import lognet
from lognet import LogTensor


def test_numpy_protocol():
    w = LogTensor.from_float(torch.randn(4, 3))
    assert np.array_equal(np.asarray(w), w.dequantize().numpy())
    assert np.asarray(w, dtype=np.float64).dtype == np.float64


def test_dlpack_gives_the_decoded_values():
    w = LogTensor.from_float(torch.randn(4, 3))
    assert torch.equal(torch.from_dlpack(w), w.dequantize())


@pytest.mark.parametrize("bits", [3, 8, 10])
def test_memory_can_be_shared_between_processes(bits):
    model = lognet.wrap(nn.Linear(4, 3), bits=bits)
    before = model.weight.dequantize()
    assert not model.weight.is_shared()
    model.share_memory()
    assert model.weight.is_shared()
    assert torch.equal(model.weight, before)
