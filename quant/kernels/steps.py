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

_POINTER = struct.Struct("@P")
_PARAMETER = struct.Struct("@PPPPPi4xPdPPqPPPPPPPqPqii")


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


def packed(*fields: float) -> bytearray:
    """The row of a parameter: the fields of ``struct Parameter`` in order."""
    return bytearray(_PARAMETER.pack(*fields))


def set_gradient(row: bytearray, address: int) -> None:
    """Let the row of a parameter point to another gradient."""
    _POINTER.pack_into(row, 0, address)


class Rows:
    """Parameters that the library is about to move together."""

    def __init__(self, rows: Sequence[bytearray]) -> None:
        self._rows, self._count = b"".join(rows), ctypes.c_int64(len(rows))
        self._sound = ctypes.create_string_buffer(len(rows))

    def check(self) -> list[bool]:
        """For each, whether its gradient is sound: without NaN, and nothing of it beyond what can be squared (with state of
        32 bits) or held in float32."""
        self._call("lognet_check")
        return [flag != 0 for flag in self._sound.raw]

    def step(self) -> None:
        """One step of those that `check` found sound."""
        self._call("lognet_step")

    def _call(self, name: str) -> None:
        threads = ctypes.c_int(torch.get_num_threads())
        if getattr(library(), name)(self._rows, self._count, self._sound, threads):
            raise MemoryError(
                f"lognet's native kernels could not allocate the plan of a step of {self._count.value} parameters"
            )
