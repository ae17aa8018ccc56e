"""How LogTensors are pickled: as their bits and their layout, which `torch.load` may map to any device.

torch's own way for tensor subclasses does not take a function for `map_location`, with which Lightning loads every
checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..quant.log_format import LogFormat
from .handlers import handles_function
from .log_tensor import LogTensor
from .storage import LogStorage


@handles_function(Tensor.__reduce_ex__)
def _reduce(x: LogTensor, protocol: int) -> Any:
    """What `pickle` writes: the storage, the layout, and the attributes that Python code has set."""
    attributes = {name: value for name, value in vars(x).items() if name not in ("_storage", "is_whole")}
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
    """The inverse of `_reduce`. Pickles name it. The device is that of the planes after `map_location`."""
    result = LogTensor(storage, size, stride=stride, offset=offset, dtype=dtype, requires_grad=requires_grad)
    vars(result).update(attributes)  # one of them says that it is a parameter
    return result


# what torch.load(weights_only=True) may build
torch.serialization.add_safe_globals([LogTensor, LogStorage, LogFormat, rebuild_log_tensor])
