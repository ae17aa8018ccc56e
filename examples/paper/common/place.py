"""A process of a run: its device, its rank among the processes of torchrun, and its collectives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """One process: alone, or one of those that torchrun started (``torchrun --nproc-per-node 8 RECIPE.py ...``)."""

    device: torch.device
    rank: int = 0
    world: int = 1
    launched: bool = False
    """By torchrun, be it with one process: the model then runs in DistributedDataParallel."""
    amp: bool = False

    @classmethod
    @contextmanager
    def of(cls, device: str, amp: str) -> Iterator[Place]:
        """The place of this process. The process group exists until the block ends."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        launched = "TORCHELASTIC_RUN_ID" in os.environ
        if not launched:
            yield cls(torch.device(device), amp=amp == "bf16")
            return
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        try:
            yield cls(torch.device(device), dist.get_rank(), dist.get_world_size(), True, amp == "bf16")
            dist.barrier()
        finally:
            dist.destroy_process_group()

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module that the training step calls."""
        if not self.launched:
            return module
        return nn.parallel.DistributedDataParallel(module)  # one device a process: that of its parameters

    def autocast(self) -> torch.autocast:
        """bfloat16 where autocast says so, or nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp)

    def share(self, size: int) -> int:
        """The size of this process's share of a batch.

        Raises:
            SystemExit: a batch that is no multiple of the number of processes.
        """
        if size % self.world:
            raise SystemExit(f"error: --batch {size} must be a multiple of the {self.world} processes")
        return size // self.world

    def sum(self, *values: float | Tensor) -> list[float]:
        """Sums over all processes."""
        total = torch.tensor([float(v) for v in values], dtype=torch.float64, device=self.device)
        if self.launched:
            dist.all_reduce(total)
        return total.tolist()

    def align(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers, because each has other averages of batch norm after a step."""
        if self.launched:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def gather(self, value: Any) -> list[Any]:
        """What each process has, by rank, on every process."""
        values = [value] * self.world
        if self.launched:
            dist.all_gather_object(values, value)
        return values
