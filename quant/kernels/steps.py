"""Madam's step in the native library: many parameters in one call, each described by a row of pointers and numbers.

The rows are those of ``csrc/lognet.h``; `lognet.optim.launch` fills them. Nothing here looks at what it points to.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

import torch

from ..ratios import spacing
from .library import library

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Gradients and float parameters that the library reads."""

_POINTER = struct.Struct("@P")
_PARAMETER = struct.Struct("@PPPPPi4xPdPPqPPPPPPPqPqii")


class Spacing(ctypes.Structure):
    """The constants of `lognet.quant.ratios.spacing`."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("octave", "q0", "q1", "q2", "q3", "zero")),
        *((name, ctypes.c_int32) for name in ("curve0", "curve1", "shift")),
    )

    @classmethod
    def of(cls, base_precision: float) -> Spacing:
        s = spacing(base_precision)
        return cls(s.octave, s.q0, s.q1, s.q2, s.q3, s.zero, *s.curve, s.shift)


class Levels(ctypes.Structure):
    """Averages in few bits: the address of a table with a number for each code, and its rungs."""

    _fields_ = (
        ("table", ctypes.c_void_p),
        ("spacing", Spacing),
        ("lowest", ctypes.c_float),
        ("last", ctypes.c_int32),
    )


class Ladder(ctypes.Structure):
    """What a step needs to know of a ladder: see `lognet.quant.ratios`."""

    _fields_ = (
        ("inverse", ctypes.c_void_p),
        ("spacing", Spacing),
        ("last", ctypes.c_int32),
        ("by_octaves", ctypes.c_int32),
    )


class Hyper(ctypes.Structure):
    """The hyperparameters of a group."""

    _fields_ = (
        *((name, ctypes.c_double) for name in ("lr", "p_scale", "g_bound", "beta", "momentum", "affine", "warmup")),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("sign_crossing", "stochastic", "bias_correction", "maximize")),
        *((name, ctypes.c_int32) for name in ("state_bits", "padding")),
        ("square", Levels),
        ("mean", Levels),
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
