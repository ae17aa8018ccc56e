"""What a step of one parameter is given: its tensors, and the numbers that change from step to step.

Numbers are Python's in eager and tensors in a compiled step, whose graph then serves every step; laid end to end, the
parameters of a bundle have a number for each element.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..quant.random_bits import key_tensor
from .shards import over_parts, part
from .state import largest_gradient

Pending = tuple[Tensor, Tensor, int, dict[str, Any]]
"""A parameter with a gradient, the gradient, the number of the parameter in its optimizer, and its group."""


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

    @staticmethod
    def as_tensors(rows: list[Scalars], device: torch.device) -> list[Scalars]:
        """The same as tensors on a device, which gets all of them at once."""
        numbers = torch.tensor([row[:-3] for row in rows], dtype=torch.float64).to(device)
        keys = torch.stack([torch.stack([key_tensor(int(key)) for key in row[-3:-1]]) for row in rows]).to(device)
        starts = torch.tensor([int(row.start) for row in rows]).to(device)
        return [Scalars(*parts, *both, start) for parts, both, start in zip(numbers, keys, starts, strict=True)]  # type: ignore[call-arg]

    @staticmethod
    def joined(rows: tuple[Scalars, ...], sizes: list[int], like: Tensor) -> Scalars:
        """A number for each element, of parameters of these sizes."""
        row_of = torch.tensor(sizes, device=like.device)

        def spread(numbers: tuple[float | Tensor, ...]) -> Tensor:
            of = torch.stack(numbers) if isinstance(numbers[0], Tensor) else torch.tensor(numbers, dtype=torch.float64)  # type: ignore[arg-type]
            return of.to(like).repeat_interleave(row_of, output_size=like.numel())

        *numbers, key, state_key, start = Scalars._fields  # by name: Dynamo of PyTorch 2.6 cannot slice a named tuple
        columns = [spread(tuple(getattr(row, name) for row in rows)) for name in numbers]
        return Scalars(*columns, *(getattr(rows[0], name) for name in (key, state_key, start)))


class Planned(NamedTuple):
    """A step of one parameter, about to be made; of a sharded one, of the part that this process holds."""

    p: Tensor
    grad: Tensor
    state: dict[str, Any]
    scalars: Scalars
    group: dict[str, Any]
    parameter: Tensor
    """As the optimizer knows it: p, or the DTensor that p is the local part of."""


def fetched(numbers: list[Tensor]) -> list[Any]:
    """The values of 0-dim tensors of one dtype, fetched together: a device is waited for once."""
    if numbers and all(number.device == numbers[0].device for number in numbers):
        return torch.stack(numbers).tolist()
    return [number.item() for number in numbers]


def with_tensors(moves: list[Planned]) -> list[Planned]:
    """The same with every number as a tensor, on the parameter's device."""
    on: dict[torch.device, list[Planned]] = {}
    for move in moves:
        on.setdefault(move.p.device, []).append(move)
    scalars: dict[int, Scalars] = {}
    for device, together in on.items():
        uploaded = Scalars.as_tensors([move.scalars for move in together], device)
        scalars.update((id(move), row) for move, row in zip(together, uploaded, strict=True))
    return [move._replace(scalars=scalars[id(move)]) for move in moves]


def are_sound(pending: list[Pending]) -> list[bool]:
    """Of each gradient, whether all of it is finite and small enough; of a sharded one, whether all parts are."""
    grads = [part(grad) for _, grad, _, _ in pending]
    filled = [grad for grad in grads if grad.numel()]  # the others have no largest entry
    largest = iter(torch._foreach_norm(filled, float("inf")) if filled else ())
    beyond = []
    for (p, _, _, group), grad in zip(pending, grads, strict=True):
        top = next(largest) if grad.numel() else grad.new_zeros(())
        limit = largest_gradient(compute_dtype(p), group["state_bits"])
        beyond.append((~(top < limit)).to(torch.uint8))  # NaN too
    return [not flag for flag in fetched(over_parts(beyond, [p for p, *_ in pending], "max"))]


def compute_dtype(p: Tensor) -> torch.dtype:
    """The dtype that a parameter's step is computed in."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32
