"""Replacing a file: the old one or the new one is there, never a part of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from typing import BinaryIO


def write_atomically(path: str | os.PathLike[str], data: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` names the old file until the new one is whole on the disk.

    An error leaves only the old file. A process that is killed leaves at most a temporary file ``.NAME.*.tmp`` beside it.
    If the system can sync folders, the new name lasts through a power cut.

    Args:
        path: of the file; its folder must exist. A link stays a link, and the file that it names is replaced.
        data: the content; text is encoded in UTF-8 as it is. Or a function that writes the content to a binary file.

    Raises:
        FileNotFoundError: there is no such folder.
        IsADirectoryError: `path` is a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(folder + "/a.txt", "new")
    ...     os.listdir(folder)
    ['a.txt']
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot save to {target}: there is no folder {folder}; create it first")
    if os.path.isdir(target):
        raise IsADirectoryError(f"cannot save to {target}: it is a folder; add the name of a file")
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    with contextlib.suppress(OSError):  # Windows cannot open folders; the file itself is in place
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
