"""Finds, checks and loads the native library at its first use.

``LOGNET_KERNELS`` in the environment names the back end: ``reference`` (plain torch), ``portable``, ``avx2`` or ``avx512``.
Without it, the best one that the machine has is used. `use` chooses the back end for a part of a program.
"""

from __future__ import annotations

import ctypes
import glob
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .sources import native_digest

VARIABLE = "LOGNET_KERNELS"
LEVELS = {"portable": 0, "avx2": 1, "avx512": 2}
REFERENCE = "reference"
_FOLDER = Path(__file__).parent
_REMEDY = (
    "Training works on plain torch operations, several times slower. To get the kernels, install a C++ compiler (g++ or"
    " clang++) and install lognet again (in a checkout: pip install -e .). LOGNET_KERNELS=reference silences this warning"
)


class _State:
    """The loaded library, and the back end in use."""

    searched = False
    library: ctypes.CDLL | None = None
    level = REFERENCE


def backend() -> str:
    """The back end in use on the CPU: "reference", "portable", "avx2" or "avx512"."""
    library()
    return _State.level


@contextmanager
def use(name: str) -> Iterator[None]:
    """Use the back end `name` inside a ``with`` block. It applies to the whole process.

    Raises:
        ValueError: `name` is not a back end, or this machine or this build does not have it.
    """
    library()
    before = _State.level
    _select(name)
    try:
        yield
    finally:
        _select(before)


def library() -> ctypes.CDLL | None:
    """The native library, or None if the back end is "reference"."""
    if not _State.searched:
        _State.searched = True
        name = os.environ.get(VARIABLE, "")
        if name not in ("", REFERENCE, *LEVELS):
            _State.searched = False
            raise ValueError(f"{VARIABLE} must be one of {', '.join((REFERENCE, *LEVELS))}, got {name!r}")
        if name != REFERENCE:
            _State.library = _load()
        if _State.library is not None:
            _select(name or next(level for level in reversed(LEVELS) if _has(level)))
    return _State.library if _State.level != REFERENCE else None


def _has(level: str) -> bool:
    return _State.library is not None and bool(_State.library.lognet_set_level(LEVELS[level]))


def _select(name: str) -> None:
    if name != REFERENCE and (name not in LEVELS or not _has(name)):
        raise ValueError(f"this machine or this build of lognet does not have the back end {name!r}")
    _State.level = name


def _load() -> ctypes.CDLL | None:
    """The library beside this file, or None, with a warning, if it is missing or was built from other sources."""
    path = _FOLDER / "_native.so"
    if not path.exists():
        warnings.warn(f"lognet was installed without its native kernels. {_REMEDY}", stacklevel=2)
        return None
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        warnings.warn(f"lognet's native kernels cannot be loaded ({error}). {_REMEDY}", stacklevel=2)
        return None
    loaded.lognet_sources.restype = ctypes.c_char_p
    if loaded.lognet_sources() != native_digest().encode():
        warnings.warn(f"lognet's native kernels were not built from this version's sources. {_REMEDY}", stacklevel=2)
        return None
    loaded.lognet_set_parallel(_parallel_regions())
    return loaded


def _parallel_regions() -> ctypes.c_void_p | None:
    """The GOMP_parallel of torch's OpenMP, so that the library shares torch's threads. None makes it use one thread."""
    try:
        maps = Path("/proc/self/maps").read_text().split()
        paths = [word for word in dict.fromkeys(maps) if "/lib" in word and "omp" in word.rsplit("/", 1)[-1]]
    except OSError:
        paths = []
    paths += glob.glob(str(Path(torch.__file__).parent / "lib" / "lib*omp*"))
    for path in paths:
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None
