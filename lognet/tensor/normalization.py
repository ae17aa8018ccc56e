"""Layer, group and root-mean-square normalisation with LogTensors for gains and biases.

Without these handlers they would compute the same: torch's own functions end in operations that decode LogTensors below
autograd. That takes several times as long as the decoding of a few hundred gains, and generation runs two such layers
for each block and token. So where nothing is differentiated, the gains are decoded before the function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quant.tracing import tracing
from .few_rows import differentiated
from .floats import dense
from .handlers import handles_function


def _normalized(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """The function on decoded tensors; while tracing, or where a gradient is recorded, on the tensors as they are."""
    with torch._C.DisableTorchFunctionSubclass():
        if not tracing() and not differentiated(*args, *kwargs.values()):
            args = tuple(map(dense, args))
            kwargs = {name: dense(x) for name, x in kwargs.items()}
        return function(*args, **kwargs)


for _function in (F.layer_norm, F.group_norm, F.rms_norm, torch.layer_norm, torch.group_norm, torch.rms_norm):
    handles_function(_function)(partial(_normalized, _function))
