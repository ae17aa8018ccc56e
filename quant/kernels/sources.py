"""Hashes of source files. A native library or a compiled graph keeps the hash of its sources, so that a stale one is not used.

setup.py runs this file by its path before the package exists, so it must not import from the package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

NATIVE = ("quant/kernels/csrc", "optim/csrc")
"""The folders of the C++ sources, in a checkout and, inside the package lognet, in an installation. Includes in quotes are
found beside the file that has them, or from the first of these folders."""


def digest(folder: Path, *suffixes: str) -> str:
    """A hash of the names and contents of the files below `folder` that have one of these suffixes."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes:
            hashed.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()[:16]


def native_digest() -> str:
    """The `digest` of all C++ sources of the native library."""
    root = Path(__file__).parents[2]
    return "".join(digest(root / folder, ".cpp", ".h") for folder in NATIVE)
