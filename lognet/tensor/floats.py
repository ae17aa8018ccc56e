"""How the library gets the floats of a tensor that may be a LogTensor.

| where | call | autograd |
|---|---|---|
| user code, which knows that w is a LogTensor | ``w.dequantize()`` | yes |
| layers and autograd functions: any tensor or None | `dense` | yes |
| handlers of operations and kernels' callers, where no gradient is recorded: any tensor | `decode` | no |
| a product by a linear map of the weight | `lognet.tensor.forms.expanded` | yes |

All end in `LogStorage.decode`, except that an embedding reads single rows with `LogStorage.decode_at`.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from .log_tensor import LogTensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, "Tensor | None")


def dense(x: MaybeTensor) -> MaybeTensor:
    """`x.dequantize()` for a LogTensor, `x` itself otherwise. Differentiable."""
    return x.dequantize() if isinstance(x, LogTensor) else x


def decode(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The values of a LogTensor in `dtype` (default: its own), `x` itself otherwise. Records no gradient."""
    return x._decode(x.dtype if dtype is None else dtype) if isinstance(x, LogTensor) else x
