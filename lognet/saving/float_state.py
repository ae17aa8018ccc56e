"""State dicts in plain floats, for libraries that write the bytes of tensors themselves (safetensors does)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..convert.patterns import check_module
from ..tensor.log_tensor import LogTensor


def float_state_dicts(model: nn.Module) -> RemovableHandle:
    """Make `model.state_dict()` hold decoded floats in place of LogTensors from now on; the model itself stays wrapped.

    Some libraries save the bytes that they read from a tensor's memory, where a LogTensor has no floats: ``save_pretrained``
    and ``Trainer`` of transformers, ``Accelerator.save_state``, `safetensors.torch.save_model`. With this, their checkpoint
    is one of the unwrapped model, which ``from_pretrained`` and other tools read. Loaded into a model that was built and
    wrapped as this one was, the values come back on the same rungs, because a ladder is given by bits, base precision and
    scale, and training changes none of the three.

    Args:
        model: any module; only its own `state_dict` (and a parent's, for this part of it) changes.

    Returns:
        A handle. Its ``remove()`` ends the effect, and so does the end of a ``with`` block.

    Raises:
        TypeError: `model` is not a module.

    Tied parameters stay one tensor under several names. LogTensors that report a dtype narrower than float32 are decoded in
    float32, because narrower floats cannot tell the rungs of wide ladders apart. ``state_dict(keep_vars=True)``, which
    `lognet.save` uses, still returns the parameters themselves.

    >>> import lognet
    >>> model = lognet.wrap(nn.Linear(4, 2))
    >>> with float_state_dicts(model):
    ...     type(model.state_dict()["weight"]).__name__
    'Tensor'
    >>> type(model.state_dict()["weight"]).__name__
    'LogTensor'
    """
    check_module(model)
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
