"""Finding, checking and loading the native library, once, when it is first wanted.

``LOGNET_KERNELS`` in the environment names the back end: ``reference`` (plain torch), ``portable``, ``avx2``, ``avx512``;
without it the best that the machine has. `use` does the same for a part of a program.
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

from .sources import digest

VARIABLE = "LOGNET_KERNELS"
LEVELS = {"portable": 0, "avx2": 1, "avx512": 2}
REFERENCE = "reference"
_FOLDER = Path(__file__).parent
_REMEDY = (
    "Training works, on plain torch operations, several times slower. To get them, install a C++ compiler (g++ or clang++)"
    " and install lognet again (in a checkout: pip install -e .); LOGNET_KERNELS=reference does without them silently"
)


class _State:
    """What was loaded, and what of it is in use."""

    asked = False
    library: ctypes.CDLL | None = None
    level = REFERENCE


def backend() -> str:
    """The back end in use on the CPU: "reference", "portable", "avx2" or "avx512"."""
    library()
    return _State.level


@contextmanager
def use(name: str) -> Iterator[None]:
    """Use the back end `name` inside a ``with`` block, in the whole process.

    Raises:
        ValueError: there is no such back end, or not on this machine.
    """
    library()
    before = _State.level
    _select(name)
    try:
        yield
    finally:
        _select(before)


def library() -> ctypes.CDLL | None:
    """The native library, or None where plain torch operations are to be used."""
    if not _State.asked:
        _State.asked = True
        name = os.environ.get(VARIABLE, "")
        if name not in ("", REFERENCE, *LEVELS):
            _State.asked = False
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
        raise ValueError(f"the back end {name!r} is not one that this machine and this build of lognet have")
    _State.level = name


def _load() -> ctypes.CDLL | None:
    """The library beside this file, if it is there and of the same age."""
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
    if loaded.lognet_sources() != digest(_FOLDER / "csrc").encode():
        warnings.warn(f"lognet's native kernels were built from other sources than these. {_REMEDY}", stacklevel=2)
        return None
    loaded.lognet_set_parallel(_parallel_regions())
    return loaded


def _parallel_regions() -> ctypes.c_void_p | None:
    """The GOMP_parallel of the OpenMP that torch uses, whose threads we share; None: one thread."""
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
