"""What operations below autograd do to LogTensors: a view changes the layout, a write encodes, any other decodes."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from .callers import DDP, called_by
from .floats import decode
from .handlers import ANY_OTHER, handles_op
from .log_tensor import LogTensor
from .storage import LogStorage, write_weights
from .wire import without_padding

aten = torch.ops.aten


# Every operation without a handler of its own


@handles_op(ANY_OTHER)
def _any_other(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse what changes a shape in place, because torch keeps the shape of a LogTensor where nothing here can change it."""
    if torch.Tag.inplace_view in func.tags and func is not aten.detach_.default:
        raise NotImplementedError(
            f"{func} changes the shape of a tensor in place, which a LogTensor cannot do; use the form that returns a"
            " view (w.t() for w.t_()), or work on w.dequantize()"
        )
    return _view(func, *args, **kwargs) if func.is_view else _on_floats(func, args, kwargs)


def _view(func: Any, x: LogTensor, *args: Any, **kwargs: Any) -> Any:
    """Apply a view to a tensor without data of the same layout, and take over the layout of the result.

    Views that read the bytes as another dtype (``view(torch.int32)``, ``view_as_complex``) get decoded bytes.
    """
    layout = torch.empty(x._storage.count, dtype=x.dtype, device="meta")
    layout = layout.as_strided(x.shape, x.stride(), x.storage_offset())
    views = func(layout, *args, **kwargs)
    if any(of.dtype != x.dtype for of in tree_iter(views)):
        return func(decode(x), *args, **kwargs)

    def view(of: Tensor) -> LogTensor:
        storage = x._storage
        if storage.has_padding and of.is_contiguous() and of.storage_offset() == 0:
            storage = without_padding(storage, of.numel())
        return LogTensor(storage, of.shape, stride=of.stride(), offset=of.storage_offset(), dtype=x.dtype)

    return tree_map(view, views)


def _on_floats(func: Any, args: Any, kwargs: Any) -> Any:
    """Run the operation on decoded tensors; encode those that it wrote to back into their LogTensors."""
    floats: dict[int, Tensor] = {}
    result = func(*_decoded(args, floats), **_decoded(kwargs, floats))
    changed = [args[i] if i < len(args) else kwargs.get(name) for name, i in _changed(func).items()]
    written = [x for x in tree_iter(changed) if isinstance(x, LogTensor)]
    for x in written:
        _write(x, floats[id(x)])
    originals = {id(floats[id(x)]): x for x in written}
    return tree_map(lambda out: originals.get(id(out), out), result) if written else result


def _decoded(x: Any, floats: dict[int, Tensor]) -> Any:
    """x with its LogTensors decoded, each of them once: `floats` collects the values by the tensor's id.

    Lists may be nested, because operations outside of aten have such arguments. tree_map would do but is slow. A closure
    that calls itself would be a reference cycle and hold decoded weights until the next garbage collection.
    """
    if isinstance(x, LogTensor):
        if id(x) not in floats:
            floats[id(x)] = decode(x)
        return floats[id(x)]
    if isinstance(x, dict):
        return {key: _decoded(value, floats) for key, value in x.items()}
    if isinstance(x, (tuple, list)):  # not type(x)(...): constructors of subclasses may take other arguments
        return (tuple if isinstance(x, tuple) else list)(_decoded(value, floats) for value in x)
    return x


@cache
def _changed(func: Any) -> dict[str, int]:
    """The names and positions of the arguments that the operation's schema says it changes."""
    specs = func._schema.arguments
    return {spec.name: i for i, spec in enumerate(specs) if spec.alias_info is not None and spec.alias_info.is_write}


def _write(x: LogTensor, values: Tensor) -> None:
    """Encode values of x's shape in place. The storage is packed, so that all of it is read, changed and written."""
    if not x.is_whole:
        values = write_weights(x, x._storage.decode(x.dtype), values)
    x._storage.write_values(values.reshape(-1))


@handles_op(
    *(aten.lerp_.Scalar, aten.lerp_.Tensor),
    *(aten._foreach_lerp_.Scalar, aten._foreach_lerp_.List, aten._foreach_lerp_.ScalarList),
)
def _average(func: Any, x: Any, ends: Any, *args: Any, **kwargs: Any) -> Any:
    """Warn about averages of LogTensors held in LogTensors (`torch.optim.swa_utils.AveragedModel`), which round away."""
    if all(any(isinstance(t, LogTensor) for t in tree_iter(of)) for of in (x, ends)):
        warnings.warn(
            "an average held in a LogTensor stands still once it moves by less than half a rung: average a float copy of"
            " the model, AveragedModel(lognet.unwrap(copy.deepcopy(model)), ...)",
            stacklevel=3,
        )
    return _on_floats(func, (x, ends, *args), kwargs)


# Copies, which move codes instead of values


def _like(x: LogTensor, storage: LogStorage, dtype: torch.dtype | None = None) -> LogTensor:
    """x's layout over another storage of the same count."""
    return LogTensor(storage, x.shape, stride=x.stride(), offset=x.storage_offset(), dtype=dtype or x.dtype)


def compact(x: LogTensor, dtype: torch.dtype | None = None, device: torch.device | None = None) -> LogTensor:
    """A contiguous copy with a storage of its own."""
    move = lambda plane: plane.to(device=device, copy=True)
    if x.is_whole:
        return _like(x, x._storage.map(move), dtype)
    exponent, negative = x.codes()
    storage = LogStorage.from_codes(x.format, exponent.reshape(-1), negative.reshape(-1), x.scale)
    if x.mask is not None:
        storage.write_kept(x.mask.reshape(-1), _mask_group(x))
    return LogTensor(storage.map(move), x.shape, dtype=dtype or x.dtype)


def _mask_group(x: LogTensor) -> int:
    """How many weights may share one bit of a mask, so that the bits fit any rows of x."""
    return math.gcd(x._storage.group, x.shape[1:].numel())


@handles_op(aten.detach.default, aten.alias.default)
def _detach(func: Any, x: LogTensor) -> LogTensor:
    """The same bits in another tensor, also where torch makes a view of nothing but the tensor itself."""
    return _like(x, x._storage)


@handles_op(aten.clone.default)
def _clone(func: Any, x: LogTensor, *, memory_format: Any = None) -> LogTensor:
    """A copy of the codes, contiguous whatever the memory format."""
    return compact(x)


@handles_op(aten._to_copy.default)
def _to_copy(func: Any, x: LogTensor, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
    """A floating dtype only changes what is reported, and a device moves the planes: the codes never change."""
    if dtype is None or dtype.is_floating_point:
        return compact(x, dtype, device)
    return decode(x).to(dtype=dtype, device=device)


@handles_op(aten.empty_like.default)
def _empty_like(func: Any, x: LogTensor, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
    """A LogTensor of the same ladder, because what asks (`to_empty`, sharding) writes a copy of x into it."""
    if dtype is not None and not dtype.is_floating_point:
        return torch.empty(x.shape, dtype=dtype, device=device or x.device)
    if x.is_meta and device is not None:  # there are no values to copy: every code is 0 and the scale 1, until written
        storage = x._storage.map(lambda plane: torch.zeros_like(plane, device=device))
        storage.scale.fill_(1)
        return _like(x, storage, dtype)
    return compact(x, dtype, device)


@handles_op(aten.copy_.default)
def _copy(func: Any, x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy codes and scale into a whole LogTensor, codes into a part of one of the same scale, values otherwise."""
    if not isinstance(x, LogTensor):
        x.copy_(decode(source))
    elif not isinstance(source, LogTensor):
        if called_by(DDP):
            check_on_ladder(x, source)
        _write(x, source.to(device=x.device).expand(x.shape))
    elif x.is_whole and x.shape == source.shape and (source.is_whole or x.format == source.format):
        x._storage.copy_((source if source.is_whole else compact(source))._storage)
    elif x.format == source.format and (x.is_meta or bool(x.scale.to(source.device) == source.scale)):
        if not x.is_meta:
            _copy_codes(x, source.expand(x.shape))  # type: ignore[arg-type]
    else:
        _write(x, decode(source, torch.float64).to(device=x.device).expand(x.shape))
    return x


def _copy_codes(x: LogTensor, source: LogTensor) -> None:
    """Copy codes and pruning between LogTensors of one ladder and scale, either of them a part of a larger one."""
    x.write_codes_(*(codes.to(x.device) for codes in source.codes()))
    if x.mask is not None or source.mask is not None:
        kept = x._storage.kept()
        kept = torch.ones(x._storage.count, dtype=torch.bool, device=x.device) if kept is None else kept
        mask = torch.ones(source.shape, dtype=torch.bool) if source.mask is None else source.mask
        group = math.gcd(x._storage.group, _mask_group(source))
        x._storage.write_kept(write_weights(x, kept, mask.to(x.device)), group)


def check_on_ladder(x: LogTensor, values: Tensor) -> None:
    """Raise ValueError unless x can hold exactly these values, which another process sent."""
    if torch.equal(decode(x), values):
        return
    rungs = x.format.encode(values.abs(), x.scale)
    same = torch.equal(x.format.decode(rungs, values < 0, x.scale, values.dtype), values)
    if not same or values.dtype not in (torch.float32, torch.float64):  # coarser dtypes do not tell all rungs apart
        raise ValueError(
            f"a LogTensor of shape {tuple(x.shape)} cannot take over the weights of another rank, which are not on its"
            f" ladder (its scale is {float(x.scale):.4g}). Start every rank from the same weights, by the same"
            " torch.manual_seed before the model is built or by loading the same file, before DistributedDataParallel"
        )
