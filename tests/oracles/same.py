"""Compares tensors in everything that a copy must keep."""

import torch

from lognet import LogTensor


def assert_same(a, b):
    assert type(a) is type(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert torch.equal(a, b)
    if isinstance(a, LogTensor):
        assert a.format == b.format
        assert torch.equal(a.exponent, b.exponent)
        assert torch.equal(a.signs, b.signs)
        assert a.scale == b.scale
        assert (a.mask is None) == (b.mask is None)
        assert a.mask is None or torch.equal(a.mask, b.mask)
        assert a.nbytes == b.nbytes


def assert_same_dicts(a, b):
    """The same for state dicts, nested or not."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        (assert_same_dicts if isinstance(value, dict) else assert_same)(value, b[name])
