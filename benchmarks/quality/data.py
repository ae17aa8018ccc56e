"""The data of the suite: the sweep's digits and text, MNIST-1D and Friedman's function, which packages generate here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from lognet.sweep import Dataset, load_digits, load_text


def with_digest(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, classes: int, origin: str) -> Dataset:
    """A data set with the digest of its tensors; `classes` is the number of outputs where targets are real numbers."""
    digest = hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in (train_x, train_y, test_x, test_y)))
    return Dataset(train_x, train_y, test_x, test_y, classes, digest.hexdigest(), origin)


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
    return with_digest(train_x, train_y, test_x, test_y, 10, "MNIST-1D, made by the package mnist1d")


def load_raw_digits() -> Dataset:
    """The digits with pixels from 0 to 1. The sweep's digits are centred."""
    digits = load("digits")
    least, most = digits.train_x.min(), digits.train_x.max()
    train_x, test_x = ((x - least) / (most - least) for x in (digits.train_x, digits.test_x))
    return with_digest(train_x, digits.train_y, test_x, digits.test_y, digits.classes, f"{digits.origin}, from 0 to 1")


def load_pictures() -> Dataset:
    """The digits, with their own 64 pixels as targets."""
    digits = load("digits")
    train, test = digits.train_x, digits.test_x
    return with_digest(train, train.flatten(1), test, test.flatten(1), 64, f"{digits.origin}, as their own targets")


def load_friedman() -> Dataset:
    """3,000 points of Friedman's first function of ten variables, five of them idle; a third is held out.

    Uniform points, noise of standard deviation 0.1. Inputs and targets are standardised by the mean
    and deviation of the training points.
    """
    try:
        from sklearn.datasets import make_friedman1
    except ImportError as e:
        raise ModuleNotFoundError(
            'the Friedman task needs scikit-learn; install it with: pip install "lognet[quality]"'
        ) from e
    x, y = map(torch.as_tensor, make_friedman1(n_samples=3000, noise=0.1, random_state=0))
    x, y = (((t - t[:2000].mean(0)) / t[:2000].std(0)).float() for t in (x, y[:, None]))
    return with_digest(x[:2000], y[:2000], x[2000:], y[2000:], 1, "Friedman's first function, made by scikit-learn")


LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": load_digits,
    "mnist1d": load_mnist1d,
    "text": load_text,
    "digits-raw": load_raw_digits,
    "pictures": load_pictures,
    "friedman": load_friedman,
}


@cache
def load(name: str) -> Dataset:
    """A data set by name. It is made once in each process."""
    return LOADERS[name]()
