"""The data of the suite: the sweep's digits and text, and MNIST-1D, which its package generates here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import torch

from lognet.sweep import Dataset, load_digits, load_text


def load_mnist1d() -> Dataset:
    """The 5,000 standard examples of MNIST-1D, 40 numbers each, a fifth of them held out; from its fixed seed."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as e:
        raise ModuleNotFoundError(
            'the MNIST-1D tasks need mnist1d; install it with: pip install "lognet[quality]"'
        ) from e
    made = make_dataset(get_dataset_args())
    train_x, test_x = (torch.as_tensor(made[name], dtype=torch.float32) for name in ("x", "x_test"))
    train_y, test_y = (torch.as_tensor(made[name], dtype=torch.int64) for name in ("y", "y_test"))
    digest = hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in (train_x, train_y, test_x, test_y)))
    return Dataset(train_x, train_y, test_x, test_y, 10, digest.hexdigest(), "MNIST-1D, made by the package mnist1d")


LOADERS: dict[str, Callable[[], Dataset]] = {"digits": load_digits, "mnist1d": load_mnist1d, "text": load_text}


@cache
def load(name: str) -> Dataset:
    """A data set by name, made once a process."""
    return LOADERS[name]()
