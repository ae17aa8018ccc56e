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

    lr: float | Tensor
    """eta, after the warm-up; for a LogTensor in rungs, eta / eta_0."""
    relative: float | Tensor
    """With `absolute`, the two coefficients of the affine step (`affine_coefficients`)."""
    absolute: float | Tensor
    correction: float | Tensor
    """1 / (1 - beta^t), or 1 without bias correction."""
    momentum_correction: float | Tensor
    """1 / (1 - mu^t), or 1 without bias correction."""
    sigma_star: float | Tensor
    key: int | Tensor
    """The key of the random bits that round the weights."""
    state_key: int | Tensor
    """The key of the random bits that round the averages."""
    start: int | Tensor
    """The number of the first local element in the full parameter."""


@dataclass(slots=True, eq=False)
class ParameterStep:
    """One parameter in one step.

    `local`, `grad`, `state` and `counts` are final after `complete`. A step that the native engine has cached does not
    need it, because its parameter is not sharded.
    """

    parameter: Tensor
    """The parameter as the optimizer knows it: floats, a LogTensor, or a DTensor of either."""
    index: int
    """The number of the parameter in the optimizer. Random bits depend on it."""
    group: dict[str, Any]
    local: Tensor
    """The part of `parameter` that this process holds: `parameter` itself unless it is a DTensor."""
    grad: Tensor
    """The gradient of `local`."""
    state: dict[str, Any] = field(init=False)
    """The state of `local`, which shares the memory of the optimizer's state."""
    counts: Tensor | None = None
    """Where a step of a LogTensor adds its counts: ``state["counts"]``, or zeros for a sharded parameter, because the
    counts of all processes are added up at the end of the step."""
    scalars: Scalars = field(init=False)
    """The numbers of this step, for the torch engine. The native engine computes its own."""
    packed: Any = None
    """The record that the kernels of an engine read, for engines with kernels."""

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
