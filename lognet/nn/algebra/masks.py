"""The pruned set of a layer's weights: the mask of a LogTensor, or a buffer of the layer beside a float weight.

`copy.deepcopy`, state dicts, `lognet.wrap` and `lognet.unwrap` keep it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...tensor.log_tensor import LogTensor
from .algebras import Algebra

SUFFIX = "_keep"


class Prunable(nn.Module):
    """A layer whose parameters named ``weight...``, (*, A), are tuples of its `algebra` and can be pruned.

    The mask of a float weight is a buffer of its name and ``_keep``, present once something is pruned and part of the
    state dict from then on. Loading a state dict takes over the pruned set of every weight that is in it.
    """

    algebra: Algebra

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """torch's method without the masks, because a fresh layer does not have their buffers yet."""
        saved = {}
        for name in (name for name in self._parameters if prefix + name in state_dict):
            self._buffers.pop(name + SUFFIX, None)
            saved[name] = state_dict.pop(prefix + name + SUFFIX, _by_tuples(state_dict.get(prefix + name)))
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name, keep in saved.items():
            p = self._parameters[name]
            if keep is not None and p is not None and keep.shape[:-1] == p.shape[:-1]:  # else torch has complained
                set_mask(self, name, keep)


def get_mask(module: nn.Module, name: str) -> Tensor | None:
    """False where a parameter of a module is pruned, of its shape or with 1 last if whole tuples are; None if none is."""
    parameter = module._parameters[name]
    return _by_tuples(parameter) if isinstance(parameter, LogTensor) else module._buffers.get(name + SUFFIX)


def _by_tuples(x: Any) -> Tensor | None:
    """The mask of a LogTensor, with 1 last if it is the same along its last dimension."""
    keep = x.mask if isinstance(x, LogTensor) else None
    if keep is None or keep.dim() == 0:
        return keep
    whole = keep.any(-1, keepdim=True)
    return whole if bool((whole == keep).all()) else keep


@torch.no_grad()
def set_mask(module: nn.Module, name: str, keep: Tensor) -> None:
    """Prune a parameter: zero where `keep`, as `get_mask` returns it, is False.

    Float parameters of modules that are not `Prunable` become zero there, but no mask is kept.
    """
    parameter = module._parameters[name]
    assert parameter is not None
    keep = keep.to(parameter.device)
    if isinstance(parameter, LogTensor):
        parameter.set_mask_(keep)
        module._buffers.pop(name + SUFFIX, None)
        return
    parameter.masked_fill_(~keep, 0)
    if isinstance(module, Prunable):
        module.register_buffer(name + SUFFIX, keep.clone())


def replace_parameter(module: nn.Module, name: str, new: nn.Parameter) -> None:
    """Put another parameter in the place of one. What was pruned stays pruned."""
    keep = get_mask(module, name)
    setattr(module, name, new)  # not in `_parameters`, because recurrent layers keep a list of their weights in step
    if keep is not None:
        own = get_mask(module, name)  # of a padding row, say
        set_mask(module, name, keep if own is None else keep & own)
