"""Peak memory of a whole training process. The measured processes run this file.

``python -m benchmarks.speed.resident KIND LAYERS WIDTH`` trains for some steps and prints its peak resident memory in bytes.
The peak is VmHWM of /proc/self/status, which starts at zero with the program (ru_maxrss would inherit the parent's). The C
library is told to return every larger block to the system when it is freed (MALLOC_MMAP_THRESHOLD_). By default it soon
keeps blocks of up to 32 MB, and the peak would include them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from .measure import Row, Size

THEME = "Peak memory of training"
KINDS = ("idle", "adam", "madam-8", "madam-4")
STEPS, BATCH = 4, 4


def peak() -> int:
    """The most memory that this process has ever held in RAM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def train(kind: str, layers: int, width: int) -> None:
    """Adam as usual, or Madam on a model wrapped layer by layer, with gradients freed as they are used."""
    torch.set_num_threads(2)
    if kind == "adam":
        model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        adam = torch.optim.Adam(model.parameters(), fused=True)
        for _ in range(STEPS):
            adam.zero_grad()
            model(torch.randn(BATCH, width)).square().mean().backward()
            adam.step()
        return
    import lognet
    from lognet.optim import Madam

    model = nn.Sequential(*(lognet.wrap(nn.Linear(width, width), bits=8) for _ in range(layers)))
    Madam(model.parameters(), state_bits=int(kind.removeprefix("madam-"))).step_in_backward()
    for _ in range(STEPS):
        model(torch.randn(BATCH, width)).square().mean().backward()


def measured(kind: str, size: Size) -> int:
    command = [sys.executable, "-m", "benchmarks.speed.resident", kind, str(size.resident), str(size.layer)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def rows(size: Size) -> Iterator[Row]:
    if not Path("/proc/self/status").exists():
        yield Row(THEME, "8 bits with Madam", "Adam", None, 0.30, note="needs the /proc of Linux")
        return
    idle, adam, *ours = (measured(kind, size) for kind in KINDS)
    count = size.resident * size.layer * (size.layer + 1)
    against = f"float32 with fused Adam, {count:,} parameters, batch {BATCH}"
    for bits, bound, bytes_ in zip((8, 4), (0.30, 0.30), ours, strict=True):
        note = f"{(bytes_ - idle) / 2**20:,.0f} MiB against {(adam - idle) / 2**20:,.0f} MiB"
        value = (bytes_ - idle) / (adam - idle)
        yield Row(THEME, f"8 bits with Madam, state_bits={bits}, gradients released", against, value, bound, note=note)


if __name__ == "__main__":
    if sys.argv[1] != "idle":
        train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(peak())
