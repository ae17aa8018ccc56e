"""The native engine: Madam's step in C++, for contiguous float32 and bfloat16 gradients on the CPU.

It gives, bit for bit, what the torch engine gives. What it does not know (float64, float16, strided tensors, the
multiplicative step on floats, sharded parameters) it leaves to that engine.

One call moves many parameters, each described by a packed record (`structures.Parameter`). Packing is slow compared with
the step of a small parameter. The engine therefore keeps the records from step to step, and as long as a parameter and
its state stay where they are it only changes the address of the gradient.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter as TorchParameter

from ...quant.block_format import BLOCK, BlockFormat
from ...quant.kernels import native
from ...quant.log_format import LogFormat
from ...quant.random_bits import MASK64
from ...quant.ratios import inverse_rungs
from ...tensor.log_tensor import LogTensor
from ..parameter_step import ParameterStep
from ..state import AVERAGES, state_format
from .structures import DTYPES, Hyper, Ladder, Levels, Parameter, step_library

_STATE = ("step", "sigma", "counts", "exp_avg_sq", "exp_avg_sq_scale", "exp_avg", "exp_avg_scale")
_OF_MOMENTUM = _STATE[-2:]


class _Group(NamedTuple):
    group: dict[str, Any]
    hyper: Hyper
    options: tuple[int, bool, bool]  # what records depend on: state_bits, is there momentum, is the step affine


@dataclass(slots=True, eq=False)
class _Cached:
    """A packed record, and all that it depends on but the gradient."""

    record: Parameter
    parameter: Tensor
    index: int
    grad_dtype: torch.dtype
    count: int
    hyper: Hyper
    options: tuple[int, bool, bool]
    tensors: tuple[Tensor | None, ...]  # of the weights and of the state
    present: tuple[Tensor, ...]  # the tensors that are not None
    addresses: tuple[int, ...]

    def is_valid(self, step: ParameterStep, group: _Group) -> bool:
        grad = step.grad
        return (
            self.parameter is step.parameter
            and self.hyper is group.hyper
            and self.options == group.options
            and self.index == step.index
            and type(grad) is Tensor
            and grad.dtype is self.grad_dtype
            and grad.numel() == self.count
            and grad.is_cpu
            and grad.is_contiguous()
            and all(map(is_, self.tensors, (*_weights(step.parameter), *map(step.state.get, _STATE))))
            and tuple(map(Tensor.data_ptr, self.present)) == self.addresses
        )


class NativeEngine:
    """The engine of one optimizer, with its memory of packed records."""

    def __init__(self) -> None:
        self._groups: dict[int, _Group] = {}
        self._cached: dict[int, _Cached] = {}

    def read_groups(self, groups: Iterable[dict[str, Any]]) -> None:
        """Read the hyperparameters that the groups of the next steps have now."""
        for group in groups:
            known = self._groups.get(id(group))
            hyper = Hyper() if known is None else known.hyper  # records have its address
            _fill(hyper, group)
            options = (group["state_bits"], group["momentum"] > 0, group["affine"] > 0)
            self._groups[id(group)] = _Group(group, hyper, options)

    def accepts(self, step: ParameterStep) -> bool:
        """Whether this engine can make the step. If so, `step.packed` is its record."""
        group = self._groups[id(step.group)]
        cached = self._cached.get(id(step.parameter))
        if cached is None or not cached.is_valid(step, group):
            if not _reads(step):
                return False
            step.complete()
            if not _fits(step):
                return False
            cached = self._cached[id(step.parameter)] = _packed(step, group)
        cached.record.grad = step.grad.data_ptr()
        step.packed = cached.record
        return True

    def check(self, steps: Sequence[ParameterStep]) -> list[bool]:
        """For each step, whether all of the gradient is finite and below `lognet.optim.state.largest_gradient`."""
        sound = bytearray(len(steps))
        _call("lognet_check", steps, sound)
        return [flag != 0 for flag in sound]

    @torch._disable_dynamo  # type: ignore[attr-defined]
    def step(self, steps: Sequence[ParameterStep]) -> None:
        """One step of each of these parameters."""
        _call("lognet_step", steps, bytearray(b"\x01" * len(steps)))
        torch.autograd.graph.increment_version([step.parameter for step in steps])  # a stale backward pass raises


def _call(name: str, steps: Sequence[ParameterStep], sound: bytearray) -> None:
    records = b"".join([step.packed for step in steps])
    flags = (ctypes.c_uint8 * len(steps)).from_buffer(sound)
    if getattr(step_library(), name)(records, ctypes.c_int64(len(steps)), flags, torch.get_num_threads()):
        raise MemoryError(f"lognet's native kernels could not allocate the plan of a step of {len(steps)} parameters")


def _reads(step: ParameterStep) -> bool:
    """Whether the kernels read this gradient, for a step of such a parameter."""
    p, grad = step.parameter, step.grad
    return (
        type(grad) is Tensor
        and grad.dtype in DTYPES
        and grad.is_cpu
        and grad.is_contiguous()
        and p.dtype != torch.float64
        and (type(p) is LogTensor or (type(p) in (TorchParameter, Tensor) and step.group["affine"] > 0))
    )


def _fits(step: ParameterStep) -> bool:
    """Whether the tensors of a parameter and of its state have the dtypes and sizes that the kernels expect."""
    p, state, count, bits = step.parameter, step.state, step.parameter.numel(), step.group["state_bits"]

    def plain(t: Tensor | None, dtype: torch.dtype, size: int) -> bool:
        return t is not None and t.dtype == dtype and t.numel() == size and native.plain(t)

    fits = plain(state.get("step"), torch.float32, 1) and plain(state.get("sigma"), torch.float64, 1)
    for name in AVERAGES if step.group["momentum"] else ("exp_avg_sq",):
        if bits == 32:
            fits = fits and plain(state.get(name), torch.float32, count)
        else:
            codes = (torch.int16, count) if bits == 16 else (torch.uint8, (count * bits + 7) // 8)
            scale = state.get(name + "_scale")
            fits = fits and plain(state.get(name), *codes) and plain(scale, torch.float32, -(-count // BLOCK))
    if isinstance(p, LogTensor):
        planes = p._storage.planes().values()
        return fits and plain(state.get("counts"), torch.int64, 3) and p.is_whole and all(map(native.plain, planes))
    return fits and p.dtype in DTYPES and native.plain(p)


def _packed(step: ParameterStep, group: _Group) -> _Cached:
    """The record of a parameter that `_fits`, without the address of the gradient."""
    p, state = step.parameter, step.state
    record = Parameter(count=p.numel(), hyper=ctypes.addressof(group.hyper), index=step.index)
    record.grad_dtype = DTYPES[step.grad.dtype]
    for name in _STATE:
        if group.group["momentum"] or name not in _OF_MOMENTUM:
            setattr(record, name, native.pointer(state.get(name)))
    if isinstance(p, LogTensor):
        storage = p._storage
        for name in ("low", "high", "sign"):
            setattr(record.planes, name, native.pointer(getattr(storage, name)))
        record.planes.bits = storage.format.bits
        record.ladder = ctypes.addressof(_ladder(storage.format)[0])
        record.base_precision, record.scale = storage.format.base_precision, storage.scale.data_ptr()
        record.keep, record.keep_group = native.pointer(storage.keep), storage.group
    else:
        record.weight, record.weight_dtype = p.data_ptr(), DTYPES[p.dtype]
        record.base_precision, record.keep_group, record.counts = 1.0, 1, None  # the state may be that of a LogTensor
    tensors = (*_weights(p), *map(state.get, _STATE))
    present = tuple(t for t in tensors if t is not None)
    addresses, like = tuple(map(Tensor.data_ptr, present)), (step.grad.dtype, p.numel())
    return _Cached(record, p, step.index, *like, group.hyper, group.options, tensors, present, addresses)


def _weights(p: Tensor) -> tuple[Tensor | None, ...]:
    if type(p) is LogTensor:
        storage = p._storage
        return storage.low, storage.high, storage.sign, storage.scale, storage.keep
    return p, None, None, None, None


def _fill(hyper: Hyper, group: dict[str, Any]) -> None:
    bits = group["state_bits"]
    if bits != 32 and bits != hyper.state_bits:
        hyper.mean, hyper.square = (_levels(state_format(name, bits))[0] for name in AVERAGES)
    hyper.lr, hyper.warmup = float(group["lr"]), group["warmup"]
    for name in ("p_scale", "g_bound", "beta", "momentum", "affine"):
        setattr(hyper, name, group[name])
    for name in ("sign_crossing", "bias_correction", "maximize"):
        setattr(hyper, name, bool(group[name]))
    hyper.stochastic, hyper.seed, hyper.state_bits = group["rounding"] == "stochastic", group["seed"] & MASK64, bits


@cache
def _ladder(ladder: LogFormat) -> tuple[Ladder, Tensor]:
    """The record of a ladder, and the table that it points to."""
    inverse = inverse_rungs(ladder, torch.empty(0))
    by_octaves = ladder.by_octaves and ladder.bits <= 12
    return Ladder(inverse.data_ptr(), native.Spacing.of(ladder.base_precision), ladder.last_rung, by_octaves), inverse


@cache
def _levels(format: BlockFormat) -> tuple[Levels, Tensor]:
    """The record of a format of averages, and the table that it points to."""
    table = format.table(torch.empty(0))
    return Levels(table.data_ptr(), native.Spacing.of(format.base_precision), format.lowest, format.last_rung), table
