"""What the operations of aten do to LogTensors: views move the layout, writes encode, all else decodes.

Importing this module registers them; `lognet` does.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from .log_tensor import _OPS, ANY_OPERATION, LogTensor, decode, implements_op, place
from .storage import LogStorage
from .wire import without_padding

aten = torch.ops.aten


def _like(x: LogTensor, storage: LogStorage, dtype: torch.dtype | None = None) -> LogTensor:
    """x's layout over another storage of the same count."""
    return LogTensor(storage, x.shape, stride=x.stride(), offset=x.storage_offset(), dtype=dtype or x.dtype)


def compact(x: LogTensor, dtype: torch.dtype | None = None, device: torch.device | None = None) -> LogTensor:
    """A contiguous copy that owns its bits."""
    move = lambda plane: plane.to(device=device, copy=True)
    if x._whole:
        return _like(x, x._storage.map(move), dtype)
    storage = LogStorage.from_codes(x.format, x.exponent.reshape(-1), (x.signs < 0).reshape(-1), x.scale)
    if x.mask is not None:
        storage.write_kept(x.mask.reshape(-1), _group(x))
    return LogTensor(storage.map(move), x.shape, dtype=dtype or x.dtype)


def _group(x: LogTensor) -> int:
    """Weights under one bit of a mask that fits any rows of x's."""
    return math.gcd(x._storage.group, x.shape[1:].numel())


def _write(x: LogTensor, values: Tensor) -> None:
    """Encode values of x's shape in place; a part of a storage is read, changed and written as a whole."""
    if not x._whole:
        values = place(x, x._storage.decode(x.dtype), values)
    x._storage.write_values(values.reshape(-1))


@implements_op(ANY_OPERATION)
def _any(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Every operation without an implementation of its own: by its namespace, or by what kind of operation it is."""
    if func.namespace in _OPS:
        return _OPS[func.namespace](func, *args, **kwargs)
    if torch.Tag.inplace_view in func.tags and func is not aten.detach_.default:
        raise NotImplementedError(
            f"{func} changes the shape of a tensor in place, which a LogTensor cannot do; use the form that returns a"
            " view (w.t() for w.t_()), or work on w.dequantize()"
        )
    return _view(func, *args, **kwargs) if func.is_view else _decoded(func, args, kwargs)


def _view(func: Any, x: LogTensor, *args: Any, **kwargs: Any) -> Any:
    """Any view: apply it to a tensor without data of the same layout, and take over what it did to the layout.

    Views that read the bytes as another dtype (``view(torch.int32)``, ``view_as_complex``) need decoded bytes.
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


def _decoded(func: Any, args: Any, kwargs: Any) -> Any:
    """Run `func` on dense stand-ins; those that it wrote to are encoded back."""
    dense: dict[int, Tensor] = {}
    result = func(*_stand_ins(args, dense), **_stand_ins(kwargs, dense))
    written = [x for x in tree_iter(_written(func, args, kwargs)) if isinstance(x, LogTensor)]
    for x in written:
        _write(x, dense[id(x)])
    originals = {id(dense[id(x)]): x for x in written}
    return tree_map(lambda out: originals.get(id(out), out), result) if written else result


def _stand_ins(x: Any, dense: dict[int, Tensor]) -> Any:
    """x with its LogTensors decoded, each once. Lists of aten's operations are flat, not all of others'; tree_map takes a while.

    No closure: one that calls itself is a cycle, and would hold decoded weights until the garbage is collected.
    """
    if isinstance(x, LogTensor):
        if id(x) not in dense:
            dense[id(x)] = decode(x)
        return dense[id(x)]
    if isinstance(x, dict):
        return {key: _stand_ins(value, dense) for key, value in x.items()}
    if isinstance(x, (tuple, list)):  # of types whose constructors may take other things
        return (tuple if isinstance(x, tuple) else list)(_stand_ins(value, dense) for value in x)
    return x


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that the operation's schema says it changes."""
    return [args[i] if i < len(args) else kwargs.get(name) for name, i in _changed(func).items()]


@cache
def _changed(func: Any) -> dict[str, int]:
    specs = func._schema.arguments
    return {spec.name: i for i, spec in enumerate(specs) if spec.alias_info is not None and spec.alias_info.is_write}


@implements_op(
    *(aten.lerp_.Scalar, aten.lerp_.Tensor),
    *(aten._foreach_lerp_.Scalar, aten._foreach_lerp_.List, aten._foreach_lerp_.ScalarList),
)
def _average(func: Any, x: Any, ends: Any, *args: Any, **kwargs: Any) -> Any:
    """What `torch.optim.swa_utils.AveragedModel` does; of LogTensors onto LogTensors it is no average."""
    if all(any(isinstance(t, LogTensor) for t in tree_iter(of)) for of in (x, ends)):
        warnings.warn(
            "an average held in a LogTensor stands still once it moves by less than half a rung: average a float copy of"
            " the model, AveragedModel(lognet.unwrap(copy.deepcopy(model)), ...)",
            stacklevel=3,
        )
    return _any(func, x, ends, *args, **kwargs)


@implements_op(aten.detach.default, aten.alias.default)
def _detach(func: Any, x: LogTensor) -> LogTensor:
    return _like(x, x._storage)


@implements_op(aten.clone.default)
def _clone(func: Any, x: LogTensor, *, memory_format: Any = None) -> LogTensor:
    return compact(x)


@implements_op(aten._to_copy.default)
def _to_copy(func: Any, x: LogTensor, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
    """A new floating dtype is only reported, and a device moves the planes: the codes never change."""
    if dtype is None or dtype.is_floating_point:
        return compact(x, dtype, device)
    return decode(x).to(dtype=dtype, device=device)


@implements_op(aten.empty_like.default)
def _empty_like(func: Any, x: LogTensor, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
    """Storage for a copy (`to_empty`, sharding): a LogTensor of the same ladder, its codes not yet written."""
    if dtype is not None and not dtype.is_floating_point:
        return torch.empty(x.shape, dtype=dtype, device=device or x.device)
    if x.is_meta and device is not None:  # no values to take along: every code 0 on the scale 1, until written
        storage = x._storage.map(lambda plane: torch.zeros_like(plane, device=device))
        storage.scale.fill_(1)
        return _like(x, storage, dtype)
    return compact(x, dtype, device)


def _copy_codes(x: LogTensor, source: LogTensor) -> None:
    """Codes and pruning of LogTensors of one ladder and scale, where either is a part of something larger."""
    x.write_codes_(*(codes.to(x.device) for codes in source.codes()))
    if x.mask is not None or source.mask is not None:
        kept = x._storage.kept()
        kept = torch.ones(x._storage.count, dtype=torch.bool, device=x.device) if kept is None else kept
        mask = torch.ones(source.shape, dtype=torch.bool) if source.mask is None else source.mask
        x._storage.write_kept(place(x, kept, mask.to(x.device)), math.gcd(x._storage.group, _group(source)))


@implements_op(aten.copy_.default)
def copy(func: Any, x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Into a whole LogTensor codes and scale of another move exactly, into a part of one of the same scale codes do;
    floats are encoded on the ladder as it is.
    """
    if not isinstance(x, LogTensor):
        x.copy_(decode(source))  # type: ignore[arg-type]
    elif not isinstance(source, LogTensor):
        _write(x, source.to(device=x.device).expand(x.shape))
    elif x._whole and x.shape == source.shape and (source._whole or x.format == source.format):
        x._storage.copy_((source if source._whole else compact(source))._storage)
    elif x.format == source.format and (x.is_meta or bool(x.scale.to(source.device) == source.scale)):
        if not x.is_meta:
            _copy_codes(x, source.expand(x.shape))  # type: ignore[arg-type]
    else:
        _write(x, decode(source, torch.float64).to(device=x.device).expand(x.shape))
    return x
