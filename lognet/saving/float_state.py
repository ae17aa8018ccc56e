"""State dicts in plain floats, for libraries that write the bytes of tensors themselves (safetensors does)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..tensor.log_tensor import LogTensor


def float_state_dicts(model: nn.Module) -> RemovableHandle:
    """From now on let `model.state_dict()` hold decoded floats in place of LogTensors; the model itself stays wrapped.

    For libraries whose checkpoints hold bytes that they read from a tensor's memory, where a LogTensor's values are not:
    ``save_pretrained`` and ``Trainer`` of transformers, ``Accelerator.save_state``, `safetensors.torch.save_model`. Such a
    checkpoint is one of the unwrapped model, for ``from_pretrained`` and for everybody. Loaded into a model that was
    built and wrapped as this one was, the values come back on the very same rungs: a ladder is given by bits,
    base precision and scale, and training leaves all three as they are.

    Args:
        model: any module; only its own `state_dict` (and a parent's, for this part of it) changes.

    Returns:
        A handle: its ``remove()`` ends this, and so does the end of a ``with`` block.

    Raises:
        TypeError: `model` is not a module.

    Tied parameters stay one tensor under several names. LogTensors that report a dtype narrower than float32 are given in
    float32, which tells the rungs of wide ladders apart. ``state_dict(keep_vars=True)``, which `lognet.save` uses, goes on
    giving the parameters themselves.

    >>> import lognet
    >>> model = lognet.wrap(nn.Linear(4, 2))
    >>> with float_state_dicts(model):
    ...     type(model.state_dict()["weight"]).__name__
    'Tensor'
    >>> type(model.state_dict()["weight"]).__name__
    'LogTensor'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model.register_state_dict_post_hook(_decode)


def _decode(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Decode the LogTensors of a state dict in place, those that share their bits once."""
    made: dict[Any, Tensor] = {}
    for name, value in state.items():
        if name.startswith(prefix) and isinstance(value, LogTensor) and not isinstance(value, nn.Parameter):
            part = (id(value._storage), value.storage_offset(), value.shape, value.stride())
            if part not in made:
                made[part] = value.dequantize(torch.promote_types(value.dtype, torch.float32))
            state[name] = made[part]
