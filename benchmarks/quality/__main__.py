"""``python -m benchmarks.quality``."""

import sys

from .cli import main

if __name__ == "__main__":  # workers import this file under another name
    sys.exit(main())
