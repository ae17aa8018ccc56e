"""LogTensors in many processes: what torch's engines (DDP, FSDP2, DTensor, distributed checkpoint) ask of a tensor.

A shard of a LogTensor is a LogTensor of its own, with the scale of the whole. Its planes travel as one tensor of bytes
(`lognet.tensor.wire`), so that nothing is encoded twice. docs/distributed.md says how to use the engines, and `callers`
why some handlers ask which engine called.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from . import wire
from .aten import check_on_ladder, compact
from .callers import CHECKPOINT, DTENSOR, FULLY_SHARD, called_by
from .floats import decode
from .handlers import handles_function, handles_op
from .log_tensor import LogTensor

aten = torch.ops.aten


# FSDP2. A shard is some rows of the weight, padded at the end to the size of all shards. The last ones may be empty.


@handles_function(Tensor.new_zeros)
def _new_zeros(x: LogTensor, *size: Any, **kwargs: Any) -> Tensor:
    """Dense zeros; for `fully_shard` a LogTensor of the same ladder and scale, which it fills with a shard."""
    if called_by(FULLY_SHARD):
        return _empty(x, torch.Size(*size))
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.new_zeros(x, *size, **kwargs)


def _empty(x: LogTensor, size: torch.Size) -> LogTensor:
    """A LogTensor like x with another number of rows, its codes not yet written."""
    if size[1:] != x.shape[1:]:
        raise NotImplementedError(
            f"a LogTensor of shape {tuple(x.shape)} can be sharded over its first dimension only, not into parts of shape"
            f" {tuple(size)}; leave out shard_placement_fn, or return Shard(0) for LogTensor parameters"
        )
    return LogTensor(wire.empty_like(x._storage, size.numel(), size[1:].numel()), size, dtype=x.dtype)


def _fsdp_pre_all_gather(self: LogTensor, mesh: Any) -> tuple[tuple[Tensor, ...], Any]:
    """What each rank sends: one tensor of bytes, because FSDP2 passes on only the first tensor where there is one rank.

    With the arguments (mesh) FSDP2 takes tensors of any shape; with its longer list, tensors of the weight's shape alone.
    """
    count = self._storage.padded_count
    return (wire.to_bytes(self._storage, count),), (mesh.size(), count)


def _fsdp_post_all_gather(
    self: LogTensor,
    outputs: tuple[Tensor, ...],
    sizes: tuple[int, int],
    dtype: torch.dtype,
    *,
    out: LogTensor | None = None,
) -> Any:
    """The unsharded parameter from the bytes of all ranks. It decodes in `dtype`, which mixed precision may choose.

    FSDP2 frees the planes after use. From the second time on it passes `out`, whose planes have their memory again.
    """
    ranks, count = sizes
    joined = wire.joined(self._storage, outputs[0].view(ranks, -1), count)
    if out is None:
        joined.has_padding = True  # FSDP2 cuts off the end
        rows = torch.Size((joined.count // max(1, self.shape[1:].numel()), *self.shape[1:]))
        planes = [plane for name, plane in joined.planes().items() if name != "scale"]
        return LogTensor(joined, rows, dtype=dtype), planes
    own = out._storage.planes()
    # as FSDP2 does with its own tensors, because graphs have saved them
    with torch.autograd._unsafe_preserve_version_counter(tuple(own.values())):  # type: ignore[attr-defined]
        for name, plane in joined.planes().items():
            own[name].copy_(plane[: own[name].numel()] if plane.dim() else plane)
    return None


# DTensor: `full_tensor` and the other conversions from shards to the whole.


@handles_function(F.pad)
def _pad(x: LogTensor, pad: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Dense, with zeros; for DTensor's all-gather a LogTensor with rows at the end that DTensor cuts off again."""
    if called_by(DTENSOR):
        padded = _empty(x, torch.Size((x.shape[0] + pad[-1], *x.shape[1:])))
        padded[: x.shape[0]].copy_(x)
        if x.numel() == 0:
            padded.scale.fill_(math.nan)  # an empty shard has no scale, as in `wire.to_bytes`
        return padded
    with torch._C.DisableTorchFunctionSubclass():
        return F.pad(x, pad, *args, **kwargs)


def _all_gather(func: Any, x: LogTensor, ranks: int, group: Any) -> LogTensor:
    """The rows of all ranks, which have the same number of rows."""
    own = x if x.is_whole else compact(x)
    gathered = torch.ops._c10d_functional.wait_tensor(func(wire.to_bytes(own._storage), ranks, group))
    joined = wire.joined(own._storage, gathered.view(ranks, -1), own.numel())
    return LogTensor(joined, (ranks * x.shape[0], *x.shape[1:]), dtype=x.dtype)


def _scatter(func: Any, outputs: list[LogTensor], inputs: list[list[Tensor]], *args: Any) -> Any:
    """Send codes, scale and mask, to LogTensors that have the same ladder and shape on all ranks."""
    received = [wire.to_bytes(x._storage) for x in outputs]
    sent = [[wire.to_bytes((x if x.is_whole else compact(x))._storage) for x in to_all] for to_all in inputs]  # type: ignore
    work = _finished(func(received, sent, *args))
    for x, data in zip(outputs, received, strict=True):
        wire.take_bytes(x._storage, data)
    return outputs, work


def _in_place(func: Any, outputs: list[Tensor], *args: Any) -> Any:
    """Broadcast and all-reduce send dense values, because other ranks may have dense tensors there.

    A sum is encoded as any write in place is. Values of another rank must lie on this rank's ladder.
    """
    floats = [decode(x) for x in outputs]
    work = _finished(func(floats, *args))
    for x, values in zip(outputs, floats, strict=True):
        if isinstance(x, LogTensor):
            if func is torch.ops.c10d.broadcast_.default:
                check_on_ladder(x, values)
            x.copy_(values)
    return outputs, work


def _finished(result: Any) -> Any:
    """Wait for a collective and return its handle, because what it receives has to be decoded before it is used."""
    torch._C._distributed_c10d.Work.unbox(result[1]).wait()
    return result[1]


@handles_op("c10d", "_c10d_functional")
def _other(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse all other collectives, but not waiting for one, because `_all_gather` has waited already."""
    if func.overloadpacket.__name__ in ("wait_tensor", "_wrap_tensor_autograd"):
        return x
    raise NotImplementedError(
        f"{func} does not work on a LogTensor; DTensor, DistributedDataParallel and fully_shard do. Send w.dequantize()"
    )


if torch.distributed.is_available():
    handles_op(torch.ops.c10d.scatter_.default)(_scatter)
    handles_op(torch.ops.c10d.broadcast_.default, torch.ops.c10d.allreduce_.default)(_in_place)
    handles_op(torch.ops._c10d_functional.all_gather_into_tensor.default)(_all_gather)


# Distributed checkpoint. Files hold LogTensors. It writes what it loads, chunk by chunk, through views of the shards.


class _LoadTarget(LogTensor):
    """A LogTensor, or a view of one, into which a checkpoint is copied: a copy writes the scale as well as the codes.

    A copy into a part of any other LogTensor leaves the scale, because the rest has it too. A checkpoint replaces the rest.
    """

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func is aten.copy_.default and isinstance(args[1], LogTensor):
            x, source = args[0], args[1]
            x._storage.check_same_ladder(source._storage)
            x._storage.scale.copy_(source.scale)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        as_target = lambda of: _as(_LoadTarget, of) if isinstance(of, LogTensor) else of
        return tree_map(as_target, result) if func.is_view else result

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Save it as a plain LogTensor, because checkpoints are also written from here."""
        return _as(LogTensor, self).__reduce_ex__(protocol)


def _as(kind: type[LogTensor], x: LogTensor) -> LogTensor:
    """The same bits and layout in another class."""
    return kind(x._storage, x.shape, stride=x.stride(), offset=x.storage_offset(), dtype=x.dtype)


@handles_function(Tensor.new_empty)
def _new_empty(x: LogTensor, *size: Any, **kwargs: Any) -> Tensor:
    """Dense; for a checkpoint saved in the background a LogTensor, which it then gives copies of x's attributes."""
    if called_by(CHECKPOINT):
        return _as(LogTensor, x)
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.new_empty(x, *size, **kwargs)


LogTensor.fsdp_pre_all_gather = _fsdp_pre_all_gather  # type: ignore[attr-defined]
LogTensor.fsdp_post_all_gather = _fsdp_post_all_gather  # type: ignore[attr-defined]
LogTensor.__get_tensor_shard__ = lambda self, index: _as(_LoadTarget, self)  # type: ignore[attr-defined]
