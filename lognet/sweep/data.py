"""The data of the sweep: scikit-learn's digits, a text, and the user's CIFAR-10 files.

Every loader returns a `Dataset` of plain tensors that fit in memory, with a digest of the content. Runs are compared
only if they saw the same data. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import SweepError, need

CONTEXT = 64
"""Characters that the text model sees at once."""

MAX_SYMBOLS = 256
"""Distinct characters of a text; all rarer ones share one extra symbol."""

MIN_CHARACTERS = 20 * CONTEXT
"""The shortest text: in a shorter one the held-out tenth would not fill two windows."""


@dataclass(frozen=True)
class Dataset:
    """Training and held-out tensors of one task.

    For images, ``train_x`` is ``[n, channels, height, width]`` float32 and ``train_y`` the class of each; for text
    both are the same sequence of symbol numbers, and training cuts windows from it.

    Args:
        train_x, train_y, test_x, test_y: the tensors, (n, channels, height, width) and (n,), or for text (characters,).
        classes: number of classes, or of symbols.
        digest: SHA-256 of the tensors, in hexadecimal.
        origin: where they come from, in words.

    >>> data = load_digits()
    >>> data.train_x.shape, data.classes, data.origin
    (torch.Size([899, 1, 8, 8]), 10, 'UCI digits, as shipped by scikit-learn')
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    digest: str
    origin: str

    @property
    def description(self) -> dict[str, Any]:
        """What ``results.json`` says about the data."""
        return {
            "origin": self.origin,
            "sha256": self.digest,
            "train_examples": len(self.train_x),
            "test_examples": len(self.test_x),
            "classes": self.classes,
        }


def _digest(*tensors: Tensor) -> str:
    h = hashlib.sha256()
    for t in tensors:
        h.update(f"{t.dtype}{tuple(t.shape)}".encode())
        h.update(t.contiguous().numpy().tobytes())
    return h.hexdigest()


def stratified_split(labels: Tensor, test_share: float) -> tuple[Tensor, Tensor]:
    """A fixed split of the example numbers into (train, test) with the same share of every class in both.

    Evenly spaced examples of each class are held out. There is no randomness, so the split is the same everywhere.
    """
    test = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique():
        members = (labels == c).nonzero().flatten()
        count = round(len(members) * test_share)
        test[members[((torch.arange(count) + 0.5) * (len(members) / count)).long()]] = True
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def load_digits() -> Dataset:
    """The 1,797 UCI handwritten digits, 8 x 8 pixels, that scikit-learn ships; half of each class is held out.

    Half is held out because networks classify nearly all digits correctly, and only a large test set tells them apart.

    Raises:
        SweepError: scikit-learn is not installed.

    >>> data = load_digits()
    >>> len(data.train_x), len(data.test_x)
    (899, 898)
    """
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as e:
        raise need("scikit-learn") from e
    bunch = sklearn_digits()
    x = torch.as_tensor(bunch.data, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.as_tensor(bunch.target, dtype=torch.int64)
    train, test = stratified_split(y, 1 / 2)
    mean, std = x[train].mean(), x[train].std()
    x = (x - mean) / std
    return Dataset(x[train], y[train], x[test], y[test], 10, _digest(x, y), "UCI digits, as shipped by scikit-learn")


def own_prose() -> str:
    """The prose of the language reference that every CPython carries for ``help()``, in a fixed order."""
    with warnings.catch_warnings():  # its docstring-like strings may hold escapes that newer compilers warn about
        warnings.simplefilter("ignore")
        from pydoc_data.topics import topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise SweepError(f"cannot read the text {path}: {e.strerror or e}") from e
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SweepError(f"the text {path} is not UTF-8 (byte {e.start}); convert it first") from e
    if not text.strip():
        raise SweepError(f"the text {path} is empty")
    if len(text) < MIN_CHARACTERS:
        raise SweepError(f"the text {path} has {len(text)} characters; at least {MIN_CHARACTERS} are needed")
    return text


def load_text(path: Path | None = None) -> Dataset:
    """A text as symbol numbers, split by position: the first nine tenths train, the last tenth is held out.

    The alphabet comes from the training part alone; a held-out character that is not in it counts as the shared
    symbol for rare characters, which the model has to predict like any other.

    Args:
        path: of a UTF-8 file of at least 1,280 characters. Default None: the language reference inside CPython.

    Raises:
        SweepError: the file cannot be read, is not UTF-8 or is too short.

    >>> data = load_text()
    >>> data.train_x.dtype, data.train_x is data.train_y, len(data.train_x) > 9 * len(data.test_x) - 10
    (torch.int64, True, True)
    """
    text = own_prose() if path is None else read_text(path)
    cut = len(text) * 9 // 10
    frequency = Counter(text[:cut])
    kept = sorted(sorted(frequency, key=lambda c: (-frequency[c], c))[:MAX_SYMBOLS])
    number = {c: i for i, c in enumerate(kept)}
    rare = len(kept)
    symbols = torch.tensor([number.get(c, rare) for c in text], dtype=torch.int64)
    train, test = symbols[:cut], symbols[cut:]
    origin = "pydoc_data.topics of the running Python" if path is None else path.name
    return Dataset(train, train, test, test, rare + 1, _digest(train, test), origin)


def text_windows(test: Tensor, context: int = CONTEXT) -> tuple[Tensor, Tensor]:
    """Held-out text as side-by-side windows (inputs, targets), every character but the first predicted once.

    Args:
        test: symbol numbers, (characters,).
        context: characters of a window.

    Returns:
        Inputs and targets, each (windows, context); what does not fill a window is left out.

    >>> inputs, targets = text_windows(torch.arange(6), context=2)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1], [2, 3]], [[1, 2], [3, 4]])
    """
    count = (len(test) - 1) // context
    used = count * context
    return test[:used].reshape(count, context), test[1 : used + 1].reshape(count, context)


_CIFAR_TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that admits only arrays and built-in containers, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        import _codecs

        import numpy as np

        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            # The module moved in NumPy 2 and the old name warns. Arrays themselves name the right function.
            return np.empty(0).__reduce__()[0]
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _codecs.encode,  # how Python 3 writes bytes in protocol 2
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file does")
        return allowed[module, name]


def _cifar_batch(path: Path, kind: str, key: str, classes: int) -> tuple[Tensor, Tensor]:
    """Images ``[n, 3, 32, 32]`` uint8 and labels of one CIFAR file, checked."""
    import numpy as np

    try:
        with path.open("rb") as f:
            content = _ArraysOnly(f, encoding="bytes").load()
    except OSError as e:
        raise SweepError(f"cannot read {path}: {e.strerror or e}") from e
    except Exception as e:  # a corrupt pickle can raise almost any exception
        raise SweepError(f"{path} is not a {kind} batch: {e}") from e
    data = content.get(b"data") if isinstance(content, dict) else None
    labels = content.get(key.encode()) if isinstance(content, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise SweepError(f"{path} is not a {kind} batch: b'data' should be a uint8 array of rows of 3072 bytes")
    if not isinstance(labels, list) or len(labels) != len(data) or len(data) == 0:
        raise SweepError(f"{path} is not a {kind} batch: b'{key}' should list one class for each of {len(data)} rows")
    if not all(isinstance(y, int) and 0 <= y < classes for y in labels):
        raise SweepError(f"{path} is not a {kind} batch: its labels should be integers from 0 to {classes - 1}")
    return torch.from_numpy(np.ascontiguousarray(data)).reshape(-1, 3, 32, 32), torch.tensor(labels)


def load_cifar10(folder: Path) -> Dataset:
    """The standard CIFAR-10 files (``data_batch_1`` to ``5`` and ``test_batch``), as downloaded and unpacked.

    Images are uint8 [n, 3, 32, 32], 180 MB in all: normalise a batch at a time. The files are pickles, read by an
    unpickler that admits arrays and containers and nothing that could run code.

    Args:
        folder: ``cifar-10-batches-py``, or the folder that holds it.

    Raises:
        SweepError: no such folder, files that are missing or of another kind.

    No example: it needs the data set.
    """
    return _cifar(folder, "CIFAR-10", "cifar-10-batches-py", _CIFAR_TRAIN, "test_batch", "labels", 10)


def load_cifar100(folder: Path) -> Dataset:
    """The standard CIFAR-100 files (``train`` and ``test``), with their 100 fine labels; otherwise as `load_cifar10`.

    Args:
        folder: ``cifar-100-python``, or the folder that holds it.

    Raises:
        SweepError: no such folder, files that are missing or of another kind.

    No example: it needs the data set.
    """
    return _cifar(folder, "CIFAR-100", "cifar-100-python", ["train"], "test", "fine_labels", 100)


def _cifar(folder: Path, kind: str, archive: str, train: list[str], test: str, key: str, classes: int) -> Dataset:
    """The data in a folder with the archive's name, or in the folder that holds it."""
    if not folder.is_dir():
        raise SweepError(f"the {kind} folder {folder} does not exist; give the folder of the unpacked archive")
    inner = folder / archive
    where = inner if inner.is_dir() else folder
    missing = [name for name in (*train, test) if not (where / name).is_file()]
    if missing:
        raise SweepError(f"the {kind} folder {where} lacks {', '.join(missing)} (the python version is needed)")
    parts = [_cifar_batch(where / name, kind, key, classes) for name in train]
    train_x, train_y = (torch.cat(z) for z in zip(*parts, strict=True))
    test_x, test_y = _cifar_batch(where / test, kind, key, classes)
    digest = _digest(train_x, train_y, test_x, test_y)
    return Dataset(train_x, train_y, test_x, test_y, classes, digest, f"{kind}, python version")


_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STD = (0.2470, 0.2435, 0.2616)


def normalise_cifar10(images: Tensor) -> Tensor:
    """uint8 images to float32 with zero mean and unit variance per channel over the training set."""
    mean = torch.tensor(_CIFAR_MEAN, device=images.device).reshape(3, 1, 1)
    std = torch.tensor(_CIFAR_STD, device=images.device).reshape(3, 1, 1)
    return (images.float() / 255 - mean) / std


def crop_and_flip(images: Tensor, generator: torch.Generator, size: int = 32, padding: int = 4) -> Tensor:
    """The usual augmentation: a random crop of each image padded by zeros, mirrored half the time.

    Args:
        images: of any dtype, square.
        generator: of the crops and mirrors, on the CPU.
        size: side of the crops, in pixels.
        padding: pixels of zeros on each side.

    Shape: (n, channels, side, side) to (n, channels, size, size).

    Raises:
        ValueError: images that are not square, or smaller than `size` with their padding.

    >>> crop_and_flip(torch.zeros(2, 3, 32, 32), torch.Generator().manual_seed(0), size=24, padding=0).shape
    torch.Size([2, 3, 24, 24])
    """
    n, _, side, across = images.shape
    room = side + 2 * padding - size
    if side != across or room < 0:
        raise ValueError(
            f"images must be square and, with {padding} on each side, at least {size} wide: {images.shape}"
        )
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    top, left = torch.randint(0, room + 1, (2, n), generator=generator).to(images.device)
    mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    along = torch.arange(size, device=images.device).expand(n, size)
    rows = top[:, None] + along
    columns = left[:, None] + torch.where(mirrored[:, None], size - 1 - along, along)
    picture = torch.arange(n, device=images.device)[:, None, None]
    # Indices with a slice between them put the indexed axes first: [n, height, width, channels].
    return padded[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def epoch_order(examples: int, batch: int, generator: torch.Generator) -> list[Tensor]:
    """One epoch of shuffled batches; the last incomplete one is dropped so that every step costs the same.

    Args:
        examples: how many there are.
        batch: how many make a batch; all of them if there are fewer.
        generator: of the order, for instance a `stream`.

    Returns:
        For each step the numbers of its examples, int64 of shape (batch,).

    >>> order = epoch_order(7, 3, torch.Generator().manual_seed(0))
    >>> len(order), order[0].shape, len(torch.cat(order).unique())
    (2, torch.Size([3]), 6)
    """
    order = torch.randperm(examples, generator=generator)
    batch = min(batch, examples)
    return [order[i * batch : (i + 1) * batch] for i in range(math.floor(examples / batch))]
