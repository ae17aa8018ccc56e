"""WikiText-2 and WikiText-103 in their standard layout: ``wiki.train.tokens``, ``wiki.valid.tokens``, ``wiki.test.tokens``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PARTS = ("train", "valid", "test")


def words(folder: Path) -> tuple[list[Tensor], int]:
    """Words of the three parts by number, an ``<eos>`` for each line's end; numbered as they occur in the training text.

    A word that the training text lacks counts as ``<unk>``, which the data sets themselves have for rare words.
    """
    number = {"<unk>": 0}
    texts = []
    for part in PARTS:
        with _file(folder, part).open(encoding="utf-8") as file:
            read = [word for line in file for word in [*line.split(), "<eos>"]]
        if part == "train":
            for word in read:
                number.setdefault(word, len(number))
        texts.append(torch.tensor([number.get(word, 0) for word in read], dtype=torch.int32))
    return texts, len(number)


def characters(folder: Path) -> list[Tensor]:
    """Bytes of the three parts."""
    return [torch.from_numpy(np.fromfile(_file(folder, part), dtype=np.uint8)) for part in PARTS]


def _file(folder: Path, part: str) -> Path:
    path = folder / f"wiki.{part}.tokens"
    if not path.is_file():
        raise SystemExit(f"error: {folder} lacks {path.name}; it should be the folder of the unpacked archive")
    return path
