"""LogTensors in many processes: what torch's own engines (DDP, FSDP2, DTensor, distributed checkpoint) ask of a tensor.

A part of a LogTensor is a LogTensor, whole in itself, with the scale of all of it; what travels is its planes in one
row of bytes (`lognet.tensor.wire`), so that nothing is encoded twice. Importing this module registers what is here;
`lognet` does. docs/distributed.md says how to use the engines.

Some operations mean two things. ``weight.new_zeros(...)`` of a model's code wants zeros, which no ladder has; that of
`fully_shard` wants room for a shard. Only the caller tells them apart, so `_asked_by` looks who it is.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from ..quant.tracing import tracing
from . import wire
from .aten import compact, copy
from .log_tensor import LogTensor, decode, implements, implements_op

aten = torch.ops.aten
_BETWEEN = ("lognet.", "torch.overrides", "torch.nn.functional", "torch.utils", "torch._tensor", "torch._ops")


def _asked_by(engine: str) -> bool:
    """Whether the call of a torch function being answered stands in the module of torch named, or in one below it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).startswith(engine)


# FSDP2. A shard is the rows of a part, padded at the end to the size that all shards have; the last ones may be empty.


@implements(Tensor.new_zeros)
def _new_zeros(x: LogTensor, *size: Any, **kwargs: Any) -> Tensor:
    """Zeros, dense; for `fully_shard` a LogTensor of the same ladder and scale, to hold a shard."""
    if not tracing() and _asked_by("torch.distributed.fsdp"):
        return _blank(x, torch.Size(*size))
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.new_zeros(x, *size, **kwargs)


def _blank(x: LogTensor, size: torch.Size) -> LogTensor:
    """A LogTensor like x of another number of rows, its codes not yet written."""
    if size[1:] != x.shape[1:]:
        raise NotImplementedError(
            f"a LogTensor of shape {tuple(x.shape)} can be sharded over its first dimension only, not into parts of shape"
            f" {tuple(size)}; leave out shard_placement_fn, or return Shard(0) for LogTensor parameters"
        )
    return LogTensor(wire.empty_like(x._storage, size.numel(), size[1:].numel()), size, dtype=x.dtype)


def _fsdp_pre_all_gather(self: LogTensor, mesh: Any) -> tuple[tuple[Tensor, ...], Any]:
    """What each rank sends: one row of bytes. (FSDP2 passes on a first tensor only where there is but one rank.)

    In this form, of the mesh alone, FSDP2 takes inputs of any shape; its other form wants that of the weights.
    """
    count = self._storage.padded_count
    return (wire.to_bytes(self._storage, count),), (mesh.size(), count)


def _fsdp_post_all_gather(
    self: LogTensor,
    outputs: tuple[Tensor, ...],
    sizes: tuple[int, int],
    dtype: torch.dtype,
    *,
    out: Tensor | None = None,
) -> Any:
    """The unsharded parameter from the bytes of all ranks; it decodes in `dtype`, which mixed precision may choose.

    FSDP2 frees the planes after use, and gives `out`, with planes of the same size again, from the second time on.
    """
    ranks, count = sizes
    joined = wire.joined(self._storage, outputs[0].view(ranks, -1), count)
    if out is None:
        joined.has_padding = True  # FSDP2 cuts the end off
        rows = torch.Size((joined.count // max(1, self.shape[1:].numel()), *self.shape[1:]))
        planes = [plane for name, plane in joined.planes().items() if name != "scale"]
        return LogTensor(joined, rows, dtype=dtype), planes
    assert isinstance(out, LogTensor)
    own = out._storage.planes()
    # as FSDP2 does with its own: graphs hold on to them
    with torch.autograd._unsafe_preserve_version_counter(tuple(own.values())):  # type: ignore[attr-defined]
        for name, plane in joined.planes().items():
            own[name].copy_(plane[: own[name].numel()] if plane.dim() else plane)
    return None


# DTensor: `full_tensor` and other ways from shards to the whole.


@implements(F.pad)
def _pad(x: LogTensor, pad: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Dense, with zeros; for DTensor's gathering a LogTensor with rows behind that it throws away afterwards."""
    if not tracing() and _asked_by("torch.distributed.tensor"):
        padded = _blank(x, torch.Size((x.shape[0] + pad[-1], *x.shape[1:])))
        padded[: x.shape[0]].copy_(x)
        if x.numel() == 0:
            padded.scale.fill_(math.nan)  # as in `wire.to_bytes`
        return padded
    with torch._C.DisableTorchFunctionSubclass():
        return F.pad(x, pad, *args, **kwargs)


def _all_gather(func: Any, x: LogTensor, ranks: int, group: Any) -> LogTensor:
    """The rows of all ranks, which have equally many."""
    own = x if x.is_whole else compact(x)
    gathered = torch.ops._c10d_functional.wait_tensor(func(wire.to_bytes(own._storage), ranks, group))
    return LogTensor(
        wire.joined(own._storage, gathered.view(ranks, -1), own.numel()),
        (ranks * x.shape[0], *x.shape[1:]),
        dtype=x.dtype,
    )


def _scatter(func: Any, outputs: list[LogTensor], inputs: list[list[Tensor]], *args: Any) -> Any:
    """LogTensors of one ladder and shape on all ranks get codes, scale and mask of the sender's."""
    rows = [wire.to_bytes(x._storage) for x in outputs]
    sent = [[wire.to_bytes((x if x.is_whole else compact(x))._storage) for x in to_all] for to_all in inputs]  # type: ignore
    work = _finished(func(rows, sent, *args))
    for x, row in zip(outputs, rows, strict=True):
        wire.take_bytes(x._storage, row)
    return outputs, work


def _in_place(func: Any, outputs: list[Tensor], *args: Any) -> Any:
    """Broadcast and all-reduce: values travel, dense, since other ranks may have dense tensors in these places.

    All-reduced values are encoded as in any write in place; those of another rank must be on the ladder that is here.
    """
    dense = [decode(x) if isinstance(x, LogTensor) else x for x in outputs]
    work = _finished(func(dense, *args))
    for x, values in zip(outputs, dense, strict=True):
        if isinstance(x, LogTensor):
            if func is torch.ops.c10d.broadcast_.default:
                _check_takes(x, values)
            x.copy_(values)
    return outputs, work


def _finished(result: Any) -> Any:
    """The handle that a collective returned, waited for: what comes in must be decoded before anyone else looks."""
    torch._C._distributed_c10d.Work.unbox(result[1]).wait()
    return result[1]


@implements_op("c10d", "_c10d_functional")
def _other(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Any other collective. What waits for one has nothing to wait for here: `_all_gather` did."""
    if func.overloadpacket.__name__ in ("wait_tensor", "_wrap_tensor_autograd"):
        return x
    raise NotImplementedError(
        f"{func} does not work on a LogTensor; DTensor, DistributedDataParallel and fully_shard do. Send w.dequantize()"
    )


if torch.distributed.is_available():
    implements_op(torch.ops.c10d.scatter_.default)(_scatter)
    implements_op(torch.ops.c10d.broadcast_.default, torch.ops.c10d.allreduce_.default)(_in_place)
    implements_op(torch.ops._c10d_functional.all_gather_into_tensor.default)(_all_gather)


# Distributed checkpoint. Files hold LogTensors; what is loaded, chunk by chunk, is written through views of the shards.


class _Landing(LogTensor):
    """A LogTensor, or a view of one, into which a checkpoint is copied: it takes over the scale with the codes.

    Elsewhere to copy into a part of a LogTensor leaves its scale, which is that of the rest too. Here the rest follows.
    """

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func is aten.copy_.default and isinstance(args[1], LogTensor):
            x, source = args[0], args[1]
            x._storage.check_same_ladder(source._storage)
            x._storage.scale.copy_(source.scale)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        return tree_map(_landing, result) if func.is_view else result

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Files are written through here too; to them it is what it shows."""
        return _as(LogTensor, self).__reduce_ex__(protocol)


def _as(kind: type[LogTensor], x: LogTensor) -> LogTensor:
    return kind(x._storage, x.shape, stride=x.stride(), offset=x.storage_offset(), dtype=x.dtype)


def _landing(x: Any) -> Any:
    return _as(_Landing, x) if isinstance(x, LogTensor) else x


@implements(Tensor.new_empty)
def _new_empty(x: LogTensor, *size: Any, **kwargs: Any) -> Tensor:
    """Dense; for a checkpoint saved in the background a LogTensor, which then gets copies of x's attributes."""
    if not tracing() and _asked_by("torch.distributed.checkpoint"):
        return _as(LogTensor, x)
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.new_empty(x, *size, **kwargs)


def _get_tensor_shard(self: LogTensor, index: Any) -> LogTensor:
    return _as(_Landing, self)


# DDP: it sends rank 0's values, dense, and copies them into the parameters of every rank.


@implements_op(aten.copy_.default)
def _copy_(func: Any, x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """As everywhere; but values that DDP sends and that this ladder does not have must not be rounded in silence."""
    if isinstance(x, LogTensor) and not isinstance(source, LogTensor) and _asked_by("torch.distributed.utils"):
        _check_takes(x, source)
    return copy(func, x, source, non_blocking)


def _check_takes(x: LogTensor, values: Tensor) -> None:
    """Raise ValueError unless x can hold these values of another process exactly."""
    if torch.equal(decode(x), values):
        return
    rungs = x.format.encode(values.abs(), x.scale)
    same = torch.equal(x.format.decode(rungs, values < 0, x.scale, values.dtype), values)
    if not same or values.dtype not in (torch.float32, torch.float64):  # coarser ones do not tell all rungs apart
        raise ValueError(
            f"a LogTensor of shape {tuple(x.shape)} cannot take over the weights of another rank, which are not on its"
            f" ladder (its scale is {float(x.scale):.4g}). Start every rank from the same weights, by the same"
            " torch.manual_seed before the model is built or by loading the same file, before DistributedDataParallel"
        )


for name, method in {
    "fsdp_pre_all_gather": _fsdp_pre_all_gather,
    "fsdp_post_all_gather": _fsdp_post_all_gather,
    "__get_tensor_shard__": _get_tensor_shard,
}.items():
    setattr(LogTensor, name, method)
