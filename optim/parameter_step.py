"""The record of one parameter in one step of Madam, which every stage of the step takes and fills in, and its numbers.

The torch engine takes the numbers from `set_scalars`. Under torch.compile they are tensors, because one graph then serves every
step. For the native engine `csrc/steps.cpp` computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..quant.random_bits import key_tensor, mix64
from ..quant.ratios import next_rung
from ..tensor.log_tensor import LogTensor
from .affine import affine_coefficients
from .shards import is_sharded, local, local_start, sharded_alike
from .state import prepare_state


class Scalars(NamedTuple):
    """The numbers of one parameter in one step: Python's floats and ints in eager code, tensors under torch.compile."""

    lr: float | Tensor  # eta, after the warm-up; of a LogTensor eta / eta_0, in rungs
    relative: float | Tensor  # with `absolute`: of `affine_coefficients`
    absolute: float | Tensor
    correction: float | Tensor  # 1 / (1 - beta^t), or 1 without bias correction
    momentum_correction: float | Tensor  # 1 / (1 - mu^t), or 1 without bias correction
    sigma_star: float | Tensor
    key: int | Tensor  # of the random bits that round the weights
    state_key: int | Tensor  # of the random bits that round the averages
    start: int | Tensor  # the number of the first local element in the full parameter


@dataclass(slots=True, eq=False)
class ParameterStep:
    """One parameter in one step.

    Engines need a complete record (`complete`), except for a parameter that they have cached, which is not sharded.
    """

    parameter: Tensor  # as the optimizer knows it: floats, a LogTensor, or a DTensor of either
    index: int  # in the optimizer; random bits depend on it
    group: dict[str, Any]
    local: Tensor  # the part that this process holds: `parameter` itself unless that is a DTensor
    grad: Tensor  # of `local`
    state: dict[str, Any] = field(init=False)  # of `local`; shares the memory of the optimizer's state
    counts: Tensor | None = None  # where the counts of this step go: state["counts"], of a sharded LogTensor zeros
    scalars: Scalars = field(init=False)  # set by the torch engine; the native engine computes its own
    packed: Any = None  # what the kernels of an engine read

    @property
    def is_sharded(self) -> bool:
        return self.local is not self.parameter

    def complete(self) -> None:
        """Prepare the state, and take the local parts of a sharded parameter."""
        grad = sharded_alike(self.grad.detach(), self.parameter)
        prepare_state(self.state, self.parameter, grad, self.group)
        self.grad, self.counts = local(grad), self.state.get("counts")
        if is_sharded(self.parameter):
            self.local = local(self.parameter)
            self.state = {name: local(value) for name, value in self.state.items()}
            self.counts = None if self.counts is None else torch.zeros_like(self.counts)


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
            own = [step for step in steps if step.local.device == device]
            rows = [step.scalars for step in own]
            numbers = torch.tensor([row[:-3] for row in rows], dtype=torch.float64).to(device)
            keys = torch.stack([torch.stack([key_tensor(int(key)) for key in row[-3:-1]]) for row in rows]).to(device)
            starts = torch.tensor([int(row.start) for row in rows]).to(device)
            for step, of, both, start in zip(own, numbers, keys, starts, strict=True):
                step.scalars = Scalars(*of, *both, start)  # type: ignore[call-arg]


def scalars_of(step: ParameterStep, scale: float) -> Scalars:
    """The numbers of one parameter. `scale` is that of a LogTensor."""
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
