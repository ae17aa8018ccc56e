"""Compares tensors in everything that a copy must keep, and the answers of layers with those of torch."""

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


def assert_same_answer(ours, theirs, where, tolerance, **options):
    """Two lists of tensors and Nones are close; or, if torch answered with an error, so did we."""
    if isinstance(theirs, Exception):
        refused = isinstance(ours, (TypeError, ValueError))
        assert refused, f"{where}: torch raises {theirs!r}, this {ours if isinstance(ours, Exception) else 'answers'}"
        return
    assert not isinstance(ours, Exception), f"{where}: {ours!r}"
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None), where
        if a is not None:
            close = {"rtol": tolerance, "atol": tolerance, **options}
            torch.testing.assert_close(a, b, **close, msg=lambda message: f"{where}: {message}")
