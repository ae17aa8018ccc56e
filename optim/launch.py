"""Which parameters the native kernels can move, and the rows that describe them.

The kernels do what `affine`, `update` and `state` do, to the bit; what they do not know (float64, float16, strided
tensors, the paper's step on floats) stays with those.
"""

from __future__ import annotations

import ctypes
from functools import cache
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ..log_tensor import LogTensor
from ..quant.block_format import BLOCK, BlockFormat
from ..quant.kernels import native, steps
from ..quant.log_format import LogFormat, default_base_precision
from ..quant.random_bits import MASK64
from ..quant.ratios import inverse_rungs, spacing
from .state import AVERAGES, state_format

class Launcher:
    """Describes the parameters of one optimizer, and remembers which of their tensors it has looked at."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[tuple[Any, ...], bool]] = {}

    def row(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], hyper: steps.Hyper, index: int, bits: int
    ) -> steps.Row | None:
        """The row of a parameter, or None where the kernels cannot move it.

        Args:
            grad: one that `reads` accepts.
            state: its state, whole.
            hyper: of its group.
            bits: state_bits.
        """
        storage = p._storage if isinstance(p, LogTensor) else None
        names = ("step", "sigma", "counts", "exp_avg_sq", "exp_avg_sq_scale", "exp_avg", "exp_avg_scale")
        own = [state.get(name) for name in names]
        if not hyper.momentum:
            own[5] = own[6] = None
        held = [storage.low, storage.high, storage.sign, storage.scale, storage.keep] if storage else [p, *[None] * 4]
        key = (p.dtype, bits, *held, *own)
        known = self._seen.get(id(p))
        if known is None or not all(map(is_, known[0], key)):
            known = self._seen[id(p)] = (key, _fits(p, own, bits))
        if not known[1]:
            return None
        low, high, sign, scale, keep = [0 if t is None else t.data_ptr() for t in held]
        step, sigma, counts, square, square_scale, mean, mean_scale = [0 if t is None else t.data_ptr() for t in own]
        count, dtype = grad.numel(), steps.DTYPES[grad.dtype]
        if storage is None:
            if p.numel() != count:
                return None
            return (
                grad.data_ptr(), low, 0, 0, 0, 0, 0, 1.0, 0, 0, 1, step, sigma, 0, square, square_scale, mean,
                mean_scale, count, ctypes.addressof(hyper), index, dtype, steps.DTYPES[p.dtype],
            )  # fmt: skip
        ladder = storage.format
        return (
            grad.data_ptr(), 0, low, high, sign, ladder.bits, _ladder(ladder)[0], ladder.base_precision, scale, keep, storage.group, step, sigma, counts, square,
            square_scale, mean, mean_scale, count, ctypes.addressof(hyper), index, dtype, 0,
        )  # fmt: skip


def ready() -> bool:
    """Whether there are kernels, and a step is nothing but arithmetic on memory now."""
    return native.serves()


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


def hyper_of(group: dict[str, Any]) -> steps.Hyper:
    """The row of a group."""
    bits = group["state_bits"]
    square, mean = (steps.RungTable() if bits == 32 else _state_table(state_format(n, bits)) for n in AVERAGES[::-1])
    return steps.Hyper(
        lr=float(group["lr"]),
        p_scale=group["p_scale"],
        g_bound=group["g_bound"],
        beta=group["beta"],
        momentum=group["momentum"],
        affine=group["affine"],
        warmup=group["warmup"],
        seed=group["seed"] & MASK64,
        sign_crossing=bool(group["sign_crossing"]),
        stochastic=group["rounding"] == "stochastic",
        bias_correction=bool(group["bias_correction"]),
        maximize=bool(group["maximize"]),
        state_bits=bits,
        square_rungs=square,
        mean_rungs=mean,
    )


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
    inverse, s = inverse_rungs(ladder, torch.empty(0)), spacing(ladder.base_precision)
    by_octaves = ladder.bits <= 12 and ladder.base_precision == default_base_precision(ladder.bits)
    row = steps.Ladder(
        inverse.data_ptr(), s.octave, s.q0, s.q1, s.q2, s.zero, *s.bow, s.shift, ladder.last_rung, by_octaves
    )
    return ctypes.addressof(row), row, inverse


@cache
def _state_table(format: BlockFormat) -> steps.RungTable:
    rungs = format.rungs(torch.empty(0))
    _tables.append(rungs)  # its address is given away
    octaves = steps.octaves(rungs[: format.last_code], format.base_precision)
    return steps.RungTable(rungs.data_ptr(), format.last_code, format.base_precision, octaves)


_tables: list[Tensor] = []
