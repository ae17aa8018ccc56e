"""The numbers of a step, for the torch engine. `csrc/steps.cpp` computes the same ones for the native engine.

Under torch.compile they are tensors, because one graph then serves every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...quant.random_bits import key_tensor, mix64
from ...quant.ratios import next_rung
from ...tensor.log_tensor import LogTensor
from ..affine import affine_coefficients
from ..parameter_step import ParameterStep, Scalars
from ..shards import local_start


@torch._disable_dynamo  # type: ignore[attr-defined]
def set_scalars(steps: Sequence[ParameterStep], as_tensors: bool) -> None:
    """Count these steps in the states, and set `ParameterStep.scalars`.

    Args:
        as_tensors: upload the numbers to the devices of the parameters, for torch.compile.
    """
    logs = [step for step in steps if isinstance(step.local, LogTensor)]
    scales = dict(zip(map(id, logs), values_of([step.local.scale for step in logs]), strict=True))  # type: ignore[attr-defined]
    for step in steps:
        step.state["step"] += 1
        step.scalars = scalars_of(step, scales.get(id(step), 1.0))
    if as_tensors:
        for device in {step.local.device for step in steps}:
            _upload([step for step in steps if step.local.device == device], device)


def scalars_of(step: ParameterStep, scale: float) -> Scalars:
    """The numbers of one parameter.

    Args:
        scale: the scale of a LogTensor.
    """
    group, t, sigma = step.group, int(step.state["step"]), float(step.state["sigma"])
    lr = float(group["lr"]) * min(1.0, t / max(1, group["warmup"]))
    unit, rung = 1.0, 1.0
    if isinstance(step.local, LogTensor):
        unit, rung = scale * next_rung(step.local.format), step.local.base_precision
    relative, absolute = affine_coefficients(lr, group["affine"], sigma, unit)
    return Scalars(
        lr=lr / rung,
        relative=relative,
        absolute=absolute,
        correction=1 / (1 - group["beta"] ** t) if group["bias_correction"] else 1.0,
        momentum_correction=1 / (1 - group["momentum"] ** t) if group["bias_correction"] else 1.0,
        sigma_star=group["p_scale"] * sigma,
        key=mix64(group["seed"], t, step.index),
        state_key=mix64(group["seed"], t, step.index, 1),
        start=local_start(step.parameter),
    )


def joined_scalars(rows: Sequence[Scalars], sizes: list[int], like: Tensor) -> Scalars:
    """The numbers of parameters that are laid end to end: of each number one for every element.

    Args:
        rows: the numbers of each parameter.
        sizes: the elements of each parameter.
        like: a tensor of all elements, whose dtype and device the result has.
    """
    repeats = torch.tensor(sizes, device=like.device)

    def spread(numbers: tuple[float | Tensor, ...]) -> Tensor:
        of = torch.stack(numbers) if isinstance(numbers[0], Tensor) else torch.tensor(numbers, dtype=torch.float64)  # type: ignore[arg-type]
        return of.to(like).repeat_interleave(repeats, output_size=like.numel())

    *numbers, key, state_key, start = Scalars._fields  # by name: Dynamo of PyTorch 2.6 cannot slice a named tuple
    columns = [spread(tuple(getattr(row, name) for row in rows)) for name in numbers]
    return Scalars(*columns, *(getattr(rows[0], name) for name in (key, state_key, start)))


def values_of(numbers: Sequence[Tensor]) -> list[Any]:
    """The values of 0-dim tensors of one dtype. If all are on one device, it is waited for only once."""
    if numbers and all(number.device == numbers[0].device for number in numbers):
        return torch.stack(tuple(numbers)).tolist()
    return [number.item() for number in numbers]


def _upload(steps: Sequence[ParameterStep], device: torch.device) -> None:
    rows = [step.scalars for step in steps]
    numbers = torch.tensor([row[:-3] for row in rows], dtype=torch.float64).to(device)
    keys = torch.stack([torch.stack([key_tensor(int(key)) for key in row[-3:-1]]) for row in rows]).to(device)
    starts = torch.tensor([int(row.start) for row in rows]).to(device)
    for step, own, both, start in zip(steps, numbers, keys, starts, strict=True):
        step.scalars = Scalars(*own, *both, start)  # type: ignore[call-arg]
