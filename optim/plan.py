"""What a step of one parameter is given: its tensors, and the numbers that change from step to step.

Numbers are Python's in eager and tensors in a compiled step, whose graph then serves every step; laid end to end, the
parameters of a bundle have a number for each element.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..quant.random_bits import key_tensor


class Scalars(NamedTuple):
    """The numbers of one parameter in one step: floats and ints, or the same as tensors."""

    lr: float | Tensor  # of a LogTensor: in rungs
    relative: float | Tensor  # these two: of the affine step
    absolute: float | Tensor
    correction: float | Tensor  # what the averages are multiplied with: 1 / (1 - beta^t)
    momentum_correction: float | Tensor
    sigma_star: float | Tensor
    key: int | Tensor  # of the weights' random bits
    state_key: int | Tensor  # of the averages' random bits
    start: int | Tensor  # of a part of a parameter: the number of its first weight in the whole

    def as_tensors(self, device: torch.device) -> Scalars:
        numbers = torch.tensor(self[:-3], dtype=torch.float64, device=device)
        keys = (key if isinstance(key, Tensor) else key_tensor(key, device) for key in self[-3:-1])
        return Scalars(*numbers, *keys, torch.as_tensor(self.start, device=device))  # type: ignore[call-arg]

    @staticmethod
    def joined(rows: tuple[Scalars, ...], sizes: list[int], like: Tensor) -> Scalars:
        """A number for each element, of parameters of these sizes."""
        row_of = torch.tensor(sizes, device=like.device)

        def spread(numbers: tuple[float | Tensor, ...]) -> Tensor:
            of = torch.stack(numbers) if isinstance(numbers[0], Tensor) else torch.tensor(numbers, dtype=torch.float64)  # type: ignore[arg-type]
            return of.to(like).repeat_interleave(row_of, output_size=like.numel())

        numbers = [spread(column) for column in zip(*(row[:-3] for row in rows), strict=True)]
        return Scalars(*numbers, *rows[0][-3:])  # type: ignore[call-arg]


class Planned(NamedTuple):
    """A step of one parameter, about to be made; of a sharded one, of the part that this process holds."""

    p: Tensor
    grad: Tensor
    state: dict[str, Any]
    scalars: Scalars
    group: dict[str, Any]
    parameter: Tensor
    """As the optimizer knows it: p, or the DTensor that p is the local part of."""


def read_flags(flags: list[Tensor]) -> list[bool]:
    """The values of 0-dim bool tensors, fetched together: a device is waited for once."""
    if not flags:
        return []
    if all(flag.device == flags[0].device for flag in flags):
        return torch.stack(flags).tolist()
    return [bool(flag) for flag in flags]
