"""Steps during the backward pass: each gradient is used and freed as it arrives, and no two need exist at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from .madam import Madam


class Release:
    """The hooks that `Madam.step_in_backward` has set; `remove` takes them away.

    A context manager too: ``with optimizer.step_in_backward(): ...``.
    """

    def __init__(self, optimizer: Madam) -> None:
        self._handles: list[RemovableHandle] = []
        places = ((i, p) for i, group in enumerate(optimizer.param_groups) for p in group["params"])
        for index, (group, p) in enumerate(places):
            if p.requires_grad:
                hook = partial(_step, optimizer, group, index)
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
def _step(optimizer: Madam, group: int, index: int, p: Tensor) -> None:
    optimizer._advance([(index, (p, optimizer.param_groups[group]))])
    p.grad = None
