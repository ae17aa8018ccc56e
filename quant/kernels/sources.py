"""Which sources something was made from, a native library or a compiled graph: a stale one, of a checkout that went on, must not
be used.

setup.py runs this file by its path, before there is a package: no imports of ours here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(folder: Path, *suffixes: str) -> str:
    """A name for the contents of the files below `folder` with these suffixes; without any, the C++ files."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (suffixes or (".cpp", ".h")):
            hashed.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()[:16]
