"""Layer, group and root-mean-square normalisation with LogTensors for gains and biases.

They work without this file, as every operation does: LogTensors that reach an operation of aten are decoded under autograd. That
way in takes several times as long as the decoding of a few hundred gains, and generation goes through two such layers for
each block and token. Where nothing is differentiated the gains are decoded in front of the operation instead.

Importing this module registers them; `lognet` does.
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
from .log_tensor import implements
from .recompute import dense


def _normalized(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        if not tracing() and not differentiated(*args, *kwargs.values()):
            args = tuple(map(dense, args))
            kwargs = {name: dense(x) for name, x in kwargs.items()}
        return function(*args, **kwargs)


for _function in (F.layer_norm, F.group_norm, F.rms_norm, torch.layer_norm, torch.group_norm, torch.rms_norm):
    implements(_function)(partial(_normalized, _function))
