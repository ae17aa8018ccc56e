"""How LogTensors are pickled: as their bits and their layout, which `torch.load` may map to any device.

Torch's own way for tensors without memory of their own does not take a function for `map_location`, which is how Lightning
loads every checkpoint. Importing this module registers ours; `lognet` does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..quant.log_format import LogFormat
from .log_tensor import LogTensor, implements
from .storage import LogStorage


@implements(Tensor.__reduce_ex__)
def _reduce(x: LogTensor, protocol: int) -> Any:
    attributes = {name: value for name, value in vars(x).items() if name not in ("_storage", "_whole")}
    layout = (tuple(x.shape), x.stride(), x.storage_offset(), x.dtype, x.requires_grad)
    return rebuild_log_tensor, (x._storage, *layout, attributes)


def rebuild_log_tensor(
    storage: LogStorage,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
    dtype: torch.dtype,
    requires_grad: bool,
    attributes: dict[str, Any],
) -> LogTensor:
    """The inverse of `_reduce`; pickles name it. Its device is that of the planes, wherever they were mapped to."""
    result = LogTensor(storage, size, stride=stride, offset=offset, dtype=dtype, requires_grad=requires_grad)
    vars(result).update(attributes)  # that it is a parameter, among them
    return result


torch.serialization.add_safe_globals(
    [LogTensor, LogStorage, LogFormat, rebuild_log_tensor]
)  # torch.load(weights_only=True)
