"""Madam's step in the native library: many parameters in one call, each described by a row of pointers and numbers.

The rows are those of ``csrc/lognet.h``; `lognet.optim.launch` fills them. Nothing here looks at what it points to.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from .library import library

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Gradients and float parameters that the library reads."""

_GRADIENT = struct.Struct("@Pqfi")
_PARAMETER = struct.Struct("@PPPPPi4xPdPPqPPPPPPPqPqii")
Row = tuple[float, ...]


class RungTable(ctypes.Structure):
    """A table of rungs: address, number of the last one, spacing, and the octaves that each 32 rungs span, if whole."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("last", ctypes.c_int32),
        ("base_precision", ctypes.c_float),
        ("octaves", ctypes.c_int64),
    )


def octaves(rungs: Tensor, base_precision: float) -> int:
    """The power of two by which, in octaves, each 32 rungs lie below the 32 before, exactly; 0 if there is none.

    Args:
        rungs: float32, in descending order, without a last one of 0.
        base_precision: 0 is returned below 0.012, where the kernels' short logarithm would not do.
    """
    if base_precision < 0.012:
        return 0
    fits = (n for n in (1, 2, 4, 8, 16) if torch.equal(rungs[32:], rungs[:-32] * 2.0**-n))
    return next(fits, 0)


class Ladder(ctypes.Structure):
    """What a step needs to know of a ladder: see `lognet.quant.ratios`."""

    _fields_ = (
        ("inverse", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("octave", "q0", "q1", "q2", "zero")),
        *((name, ctypes.c_int32) for name in ("bow0", "bow1", "shift", "last", "by_octaves")),
    )


class Hyper(ctypes.Structure):
    """The hyperparameters of a group."""

    _fields_ = (
        *((name, ctypes.c_double) for name in ("lr", "p_scale", "g_bound", "beta", "momentum", "affine", "warmup")),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("sign_crossing", "stochastic", "bias_correction", "maximize")),
        *((name, ctypes.c_int32) for name in ("state_bits", "padding")),
        ("square_rungs", RungTable),
        ("mean_rungs", RungTable),
    )


def largest_below(grads: Sequence[Tensor], limits: Sequence[float]) -> list[bool]:
    """Of each gradient (of `DTYPES`, contiguous), whether all of it is smaller than its limit in size, NaN never."""
    rows = ctypes.create_string_buffer(_GRADIENT.size * len(grads))
    for i, (grad, limit) in enumerate(zip(grads, limits, strict=True)):
        row = (grad.data_ptr(), grad.numel(), limit, DTYPES[grad.dtype])
        _GRADIENT.pack_into(rows, i * _GRADIENT.size, *row)
    sound = ctypes.create_string_buffer(len(grads))
    _call("lognet_check", rows, len(grads), sound)
    return [flag != 0 for flag in sound.raw]


def step(rows: Sequence[Row]) -> None:
    """One step of the parameters that the rows describe: fields in the order of ``struct Parameter``."""
    packed = ctypes.create_string_buffer(_PARAMETER.size * len(rows))
    for i, row in enumerate(rows):
        _PARAMETER.pack_into(packed, i * _PARAMETER.size, *row)
    _call("lognet_step", packed, len(rows))


def _call(name: str, rows: ctypes.Array[ctypes.c_char], count: int, *more: ctypes.Array[ctypes.c_char]) -> None:
    threads = ctypes.c_int(torch.get_num_threads())
    if getattr(library(), name)(rows, ctypes.c_int64(count), *more, threads):
        raise MemoryError(f"lognet's native kernels could not allocate the plan of a step of {count} parameters")
