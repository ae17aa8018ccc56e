"""How long ``import lognet`` takes beyond ``import torch``, which it imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

from .measure import Row, Size, by_turns

THEME = "Starting"


def importing(package: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", f"import {package}"], check=True)


def rows(size: Size) -> Iterator[Row]:
    seconds = by_turns({name: importing(name) for name in ("torch", "lognet")}, max(1, size.rounds // 4))
    more = sorted(a - b for a, b in zip(seconds["lognet"], seconds["torch"], strict=True))
    note = f"{statistics.median(seconds['lognet']):.2f} s against {statistics.median(seconds['torch']):.2f} s"
    spread = (more[len(more) // 4], more[-1 - len(more) // 4])
    value = statistics.median(more)
    yield Row(THEME, "import lognet, beyond", "import torch", value, 0.3, unit="s", spread=spread, note=note)
