"""enwik8: one file of 100,000,000 bytes, 90 % to train on, then 5 % each to validate and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def characters(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Bytes of the training, validation and test parts; `path` is the file or the folder that holds it.

    The split is the usual one (90, 5 and 5 million bytes; Dai et al. 2019), because the paper gives none.
    """
    file = path / "enwik8" if path.is_dir() else path
    if not file.is_file():
        raise SystemExit(f"error: there is no file {file}; --data is enwik8, or the folder that holds it")
    text = torch.from_numpy(np.fromfile(file, dtype=np.uint8))
    cut = len(text) // 20
    train, valid, test = text.split([len(text) - 2 * cut, cut, cut])
    return train, valid, test
