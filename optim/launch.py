"""Which parameters the native kernels can move, and the rows that describe them.

The kernels do what `affine`, `update` and `state` do, to the bit; what they do not know (float64, float16, strided
tensors, the paper's step on floats) stays with those.
"""

from __future__ import annotations

import ctypes
from functools import cache
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ..quant.block_format import BLOCK, BlockFormat
from ..quant.kernels import native, steps
from ..quant.log_format import LogFormat
from ..quant.random_bits import MASK64
from ..quant.ratios import inverse_rungs
from ..tensor.log_tensor import LogTensor
from .state import AVERAGES, state_format

_NAMES = ("step", "sigma", "counts", "exp_avg_sq", "exp_avg_sq_scale", "exp_avg", "exp_avg_scale")


class _Known(NamedTuple):
    """A parameter that the kernels move, as it was when its row was packed."""

    parameter: Tensor
    tensors: tuple[Tensor | None, ...]
    present: tuple[Tensor, ...]
    """Those of them that are not None."""
    pointers: tuple[int, ...]
    grad_dtype: torch.dtype
    size: int
    hyper: steps.Hyper
    options: tuple[int, bool, bool, int]
    """state_bits, whether there is momentum, whether the step is affine, and the index of the parameter."""
    row: bytearray


class Launcher:
    """Describes the parameters of one optimizer to the kernels, and remembers them: of a thousand small ones in a step, the
    addresses of the gradients are all that changes."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._hypers: dict[int, tuple[dict[str, Any], steps.Hyper]] = {}

    def hyper(self, group: dict[str, Any]) -> steps.Hyper:
        """The row of a group, at an address that stays, with its numbers of now."""
        group_of, hyper = self._hypers.setdefault(id(group), (group, steps.Hyper()))
        _fill(hyper, group_of)
        return hyper

    def recall(
        self, p: Tensor, grad: Tensor, state: dict[str, Any] | None, hyper: steps.Hyper, index: int
    ) -> bytearray | None:
        """The row of a parameter of which nothing but the gradient is new since `learn`; None for any other."""
        known = self._known.get(id(p))
        if (
            known is None
            or state is None
            or known.parameter is not p
            or known.hyper is not hyper
            or known.options != (hyper.state_bits, hyper.momentum > 0, hyper.affine > 0, index)
            or type(grad) is not Tensor
            or grad.dtype is not known.grad_dtype
            or grad.numel() != known.size
            or not grad.is_cpu
            or not grad.is_contiguous()
            or not all(map(is_, known.tensors, (*_held(p), *map(state.get, _NAMES))))
            or tuple(map(Tensor.data_ptr, known.present)) != known.pointers
        ):
            return None
        steps.set_gradient(known.row, grad.data_ptr())
        return known.row

    def learn(self, p: Tensor, grad: Tensor, state: dict[str, Any], hyper: steps.Hyper, index: int) -> bytearray | None:
        """The row of a parameter, or None where the kernels cannot move it.

        Args:
            grad: one that `reads` accepts, of p's shape.
            state: its state, whole.
            hyper: of its group, from `hyper`.
            index: its number in the optimizer, which names its random bits.
        """
        bits, momentum = hyper.state_bits, hyper.momentum > 0
        own = [state.get(name) for name in _NAMES]
        used = own if momentum else [*own[:5], None, None]
        if not _fits(p, used, bits):
            return None
        held, storage = _held(p), p._storage if isinstance(p, LogTensor) else None
        weight = 0 if storage else p.data_ptr()
        low, high, sign, scale, keep = [0 if t is None or not storage else t.data_ptr() for t in held]
        step, sigma, counts, square, square_scale, mean, mean_scale = [0 if t is None else t.data_ptr() for t in used]
        ladder, group = (storage.format, storage.group) if storage else (None, 1)
        row = steps.packed(
            grad.data_ptr(), weight, low, high, sign, ladder.bits if ladder else 0, _ladder(ladder)[0] if ladder else 0,
            ladder.base_precision if ladder else 1.0, scale, keep, group, step, sigma, counts if storage else 0, square,
            square_scale, mean, mean_scale, p.numel(), ctypes.addressof(hyper), index, steps.DTYPES[grad.dtype],
            0 if storage else steps.DTYPES[p.dtype],
        )  # fmt: skip
        tensors = (*held, *own)
        present = tuple(t for t in tensors if t is not None)
        pointers = tuple(map(Tensor.data_ptr, present))
        options = (bits, momentum, hyper.affine > 0, index)
        self._known[id(p)] = _Known(p, tensors, present, pointers, grad.dtype, p.numel(), hyper, options, row)
        return row


def _held(p: Tensor) -> tuple[Tensor | None, ...]:
    """The tensors of a parameter that hold its weights."""
    if type(p) is LogTensor:
        storage = p._storage
        return storage.low, storage.high, storage.sign, storage.scale, storage.keep
    return p, None, None, None, None


def ready() -> bool:
    """Whether there are kernels, and a step is nothing but arithmetic on memory now."""
    return native.ready()


def reads(p: Tensor, grad: Tensor, group: dict[str, Any]) -> bool:
    """Whether the kernels read this gradient, for a step of such a parameter."""
    return (
        type(grad) is Tensor
        and grad.dtype in steps.DTYPES
        and grad.device.type == "cpu"
        and grad.is_contiguous()
        and p.dtype != torch.float64
        and (type(p) is LogTensor or (type(p) in (Parameter, Tensor) and group["affine"] > 0))
    )


def _fill(hyper: steps.Hyper, group: dict[str, Any]) -> None:
    bits = group["state_bits"]
    if bits != 32 and bits != hyper.state_bits:
        hyper.mean, hyper.square = (_levels(state_format(name, bits)) for name in AVERAGES)
    hyper.lr, hyper.warmup = float(group["lr"]), group["warmup"]
    for name in ("p_scale", "g_bound", "beta", "momentum", "affine"):
        setattr(hyper, name, group[name])
    for name in ("sign_crossing", "bias_correction", "maximize"):
        setattr(hyper, name, bool(group[name]))
    hyper.stochastic, hyper.seed, hyper.state_bits = group["rounding"] == "stochastic", group["seed"] & MASK64, bits


def _fits(p: Tensor, own: list[Tensor | None], bits: int) -> bool:
    """Whether the tensors of a parameter are what the kernels take them for."""
    count = p.numel()
    step, sigma, counts, *kept = own

    def plain(t: Tensor | None, dtype: torch.dtype, size: int) -> bool:
        return t is not None and t.dtype == dtype and t.numel() == size and native.plain(t)

    fits = plain(step, torch.float32, 1) and plain(sigma, torch.float64, 1)
    for codes, scale in [(kept[0], kept[1])] + ([(kept[2], kept[3])] if kept[2] is not None else []):
        if bits == 32:
            fits = fits and plain(codes, torch.float32, count)
        else:
            of = (torch.int16, count) if bits == 16 else (torch.uint8, (count * bits + 7) // 8)
            fits = fits and plain(codes, *of) and plain(scale, torch.float32, -(-count // BLOCK))
    if isinstance(p, LogTensor):
        planes = p._storage.planes().values()
        return fits and plain(counts, torch.int64, 3) and p.is_whole and all(map(native.plain, planes))
    return fits and p.dtype in steps.DTYPES and native.plain(p)


@cache
def _ladder(ladder: LogFormat) -> tuple[int, steps.Ladder, Tensor]:
    """The address of the row of a ladder, and what it points to."""
    inverse = inverse_rungs(ladder, torch.empty(0))
    by_octaves = ladder.by_octaves and ladder.bits <= 12
    row = steps.Ladder(inverse.data_ptr(), steps.Spacing.of(ladder.base_precision), ladder.last_rung, by_octaves)
    return ctypes.addressof(row), row, inverse


@cache
def _levels(format: BlockFormat) -> steps.Levels:
    table = format.table(torch.empty(0))
    _tables.append(table)  # its address is given away
    return steps.Levels(table.data_ptr(), steps.Spacing.of(format.base_precision), format.lowest, format.last_rung)


_tables: list[Tensor] = []
