"""The structures that Python and the C++ of Madam's step share (see ``steps.cpp``), each described once.

An address in a structure does not keep its tensor alive. The code that sets the address must hold the tensor.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

from ...quant.kernels.library import library
from ...quant.kernels.native import Spacing

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
"""The dtypes of gradients and float parameters that the library reads."""

_POINTER, _INT, _LONG, _WORD = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double


class Levels(ctypes.Structure):
    """The format of an average in few bits: `table` has a number for each code."""

    _fields_ = (("table", _POINTER), ("spacing", Spacing), ("lowest", _FLOAT), ("last", _INT))


class Ladder(ctypes.Structure):
    """The ladder of a LogTensor: `inverse` is the table of `lognet.quant.ratios.inverse_rungs`."""

    _fields_ = (("inverse", _POINTER), ("spacing", Spacing), ("last", _INT), ("by_octaves", _INT))


class Hyper(ctypes.Structure):
    """The hyperparameters of a group."""

    _fields_ = (
        *((name, _DOUBLE) for name in ("lr", "p_scale", "g_bound", "beta", "momentum", "affine", "warmup")),
        ("seed", _WORD),
        *((name, _INT) for name in ("sign_crossing", "stochastic", "bias_correction", "maximize")),
        *((name, _INT) for name in ("state_bits", "padding")),
        ("square", Levels),
        ("mean", Levels),
    )


class Planes(ctypes.Structure):
    """The packed codes of a LogTensor: see `lognet.quant.kernels.bitpack`."""

    _fields_ = (("low", _POINTER), ("high", _POINTER), ("sign", _POINTER), ("bits", _INT))


class Parameter(ctypes.Structure):
    """One parameter in a step: its weights (`planes`, or `weight` of floats), its gradient and its state."""

    _fields_ = (
        *((name, _POINTER) for name in ("grad", "weight")),
        ("planes", Planes),
        ("ladder", _POINTER),
        ("base_precision", _DOUBLE),
        *((name, _POINTER) for name in ("scale", "keep")),
        ("keep_group", _LONG),
        *((name, _POINTER) for name in ("step", "sigma", "counts")),
        *((name, _POINTER) for name in ("exp_avg_sq", "exp_avg_sq_scale", "exp_avg", "exp_avg_scale")),
        ("count", _LONG),
        ("hyper", _POINTER),
        ("index", _LONG),
        *((name, _INT) for name in ("grad_dtype", "weight_dtype")),
    )


SHARED = (Spacing, Levels, Ladder, Hyper, Planes, Parameter)
"""In the order of ``lognet_step_sizes``."""


@cache
def step_library() -> ctypes.CDLL:
    """The native library, after its structures have been compared with those of this file.

    Raises:
        RuntimeError: a structure has another size there.
    """
    found: Any = library()
    sizes = (_LONG * len(SHARED))()
    found.lognet_step_sizes(sizes)
    check_sizes(list(sizes))
    return found


def check_sizes(sizes: list[int]) -> None:
    """Raise RuntimeError if the structures of `SHARED` have other sizes in C++."""
    for structure, size in zip(SHARED, sizes, strict=True):
        if ctypes.sizeof(structure) != size:
            raise RuntimeError(
                f"the structure {structure.__name__} has {size} bytes in lognet's native library and"
                f" {ctypes.sizeof(structure)} in {__name__}: make their fields agree, and build the library again"
                " (pip install -e .). LOGNET_KERNELS=reference does without the library"
            )
