"""The command line: ``lognet sweep ...``, or ``python -m lognet sweep ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """\
usage: lognet [-h] [--version] {sweep} ...

commands:
  sweep   compare FP32 Adam, FP32 Madam and B-bit Madam on a few tasks (lognet sweep -h for its flags)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; 2 means a wrong request."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "sweep":
        from .sweep.cli import main as sweep

        return sweep(words[1:])
    if words in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if words == ["--version"]:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print("lognet", version("lognet"))
        except PackageNotFoundError:
            print("lognet, not installed")
        return 0
    problem = f"unknown command {words[0]!r}" if words else "a command is needed"
    print(f"{USAGE}\n\nlognet: error: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
