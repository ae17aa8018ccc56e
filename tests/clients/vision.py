"""torchvision, wherever it was installed, and handwritten digits as images for its networks."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from sklearn.datasets import load_digits
from torch import Tensor


def import_torchvision() -> ModuleType:
    """torchvision from the environment, or from the folder of its own where `make test` installs it.

    The build on PyPI finds no CUDA beside a CPU build of torch, does without its C++ operations (which no classifier
    uses), and fails to be imported only because it describes two of them; here these are declared beforehand.
    """
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(Path(sys.prefix, "vision")))
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import_torchvision.library = torch.library.Library("torchvision", "FRAGMENT")  # lives as long as its declarations
    for name in ("nms", "qnms"):
        import_torchvision.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def images() -> tuple[Tensor, Tensor]:
    """The 1797 digits as (N, 3, 32, 32) images, and their labels."""
    digits = load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    large = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear")
    return large.expand(-1, 3, -1, -1), torch.tensor(digits.target)
