"""The record of one parameter in one step of Madam. Every stage of the step takes it, and fills in what it finds out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .shards import is_sharded, local, sharded_alike
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
