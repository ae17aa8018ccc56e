"""The two ways in which a sweep ends early: the request was wrong, or a run failed."""

from __future__ import annotations


class SweepError(ValueError):
    """The request cannot be carried out; raised before anything is changed.  The message names the remedy.

    >>> from pathlib import Path
    >>> from lognet.sweep import load_text
    >>> load_text(Path("no-such-file"))
    Traceback (most recent call last):
    ...
    lognet.sweep.errors.SweepError: cannot read the text no-such-file: No such file or directory
    """


class RunFailed(RuntimeError):
    """A worker process failed in the middle of a run; the message carries its traceback or last words."""


def need(module: str) -> SweepError:
    return SweepError(f'the sweep needs {module}; install it with: pip install "lognet[sweep]"')
