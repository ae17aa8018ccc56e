"""Which sources a native library was built from: a stale one, of a checkout that went on, must not be used.

setup.py runs this file by its path, before there is a package: no imports of ours here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(folder: Path) -> str:
    """A name for the contents of the C++ files in `folder`."""
    hashed = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".cpp", ".h"):
            hashed.update(path.name.encode() + path.read_bytes())
    return hashed.hexdigest()[:16]
