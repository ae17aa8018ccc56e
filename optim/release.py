"""Steps during the backward pass: each gradient is used and freed as soon as it is complete, so few exist at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

Advance = Callable[[list[tuple[int, Tensor, dict[str, Any]]]], None]
"""Makes a step of parameters, each given with its index in the optimizer and its group."""


class Release:
    """The hooks that `Madam.step_in_backward` has set; `remove` takes them away.

    A context manager too: ``with optimizer.step_in_backward(): ...``.
    """

    def __init__(self, optimizer: Optimizer, advance: Advance) -> None:
        self._handles: list[RemovableHandle] = []
        numbered = ((i, p) for i, group in enumerate(optimizer.param_groups) for p in group["params"])
        for index, (group_index, p) in enumerate(numbered):
            if p.requires_grad:
                hook = partial(_step, optimizer, advance, group_index, index)
                self._handles.append(p.register_post_accumulate_grad_hook(hook))

    def remove(self) -> None:
        """Go back to ordinary steps."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Release:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@torch.no_grad()
def _step(optimizer: Optimizer, advance: Advance, group_index: int, index: int, p: Tensor) -> None:
    advance([(index, p, optimizer.param_groups[group_index])])  # loading a state dict replaces the groups
    p.grad = None
