"""What Python asks of a tensor, outside torch's computations: arrays, lists, text, shared memory, ``.data``, pickles."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..quant.log_format import LogFormat
from .floats import dense
from .handlers import handles_function
from .log_tensor import LogTensor
from .storage import LogStorage


def _on_floats(method: Any, x: LogTensor, *args: Any, **kwargs: Any) -> Any:
    """Run the method on the decoded values, because it reads floats from memory and a LogTensor has none there."""
    return method(x.dequantize(), *args, **kwargs)


for _method in (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.tolist):
    handles_function(_method)(partial(_on_floats, _method))


@handles_function(Tensor.__format__)
def _format(x: LogTensor, spec: str) -> str:
    """A number in the format of `spec`; without one the repr, as for any tensor."""
    return format(x.detach().dequantize() if spec else repr(x), spec)


@handles_function(Tensor.share_memory_)
def _share_memory(x: LogTensor) -> LogTensor:
    """Share the planes, because torch's own would take the address of a dense tensor that does not exist."""
    for plane in x._storage.planes().values():
        plane.share_memory_()
    return x


@handles_function(Tensor.is_shared)
def _is_shared(x: LogTensor) -> bool:
    return all(plane.is_shared() for plane in x._storage.planes().values())


@handles_function(Tensor.storage)
def _storage_of_floats(x: LogTensor) -> Any:
    """Say what to do instead, because torch's own error does not help those who called another library's save."""
    raise RuntimeError(
        "a LogTensor has no floats in memory, which is where safetensors and the libraries that save with it"
        " (transformers, accelerate) read them. Call lognet.float_state_dicts(model) once after lognet.wrap: their"
        " checkpoints then hold floats; or save the packed bits with lognet.save(model, path)"
    )


@handles_function(Tensor.data.__set__)  # type: ignore[attr-defined]
def _set_data(x: Tensor, value: Tensor) -> None:
    """``x.data = value``, the old way to write unseen by autograd: encode like any other write in place."""
    if not isinstance(x, LogTensor):
        x.data = dense(value)
        return
    zeros = int(((value == 0) & (x != 0)).sum())
    if zeros:
        warnings.warn(
            f"{zeros} of {x.numel()} values given to .data are zero and become the last rung,"
            f" +-{float(x.scale) / x.format.range:.3g}: the ladder of a LogTensor has no zero. w.set_mask_(mask) makes exact"
            " zeros, and Madam keeps them (after torch.nn.utils.prune.remove, say)",
            stacklevel=3,
        )
    x.detach().copy_(value.detach())


@handles_function(Tensor.__reduce_ex__)
def _reduce(x: LogTensor, protocol: int) -> Any:
    """What `pickle` writes: the storage, the layout, and the attributes that Python code has set.

    torch's own way for tensor subclasses takes no function for `map_location`, with which Lightning loads every checkpoint.
    """
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
