"""torch.autocast for operations on LogTensors, which torch's own rules do not reach."""

from __future__ import annotations

from typing import Any

import torch

_CAST_FROM = (torch.float32, torch.float16, torch.bfloat16)  # float64 stays, as in torch


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of torch.autocast on a device; None where autocast is off, and on the meta device, which has none."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def in_autocast_dtype(*tensors: Any) -> Any:
    """The tensors (or None) in the dtype of torch.autocast, as torch's own linear and convolution cast them.

    Casting a LogTensor changes only the dtype in which it decodes.
    """
    if not torch._C._is_any_autocast_enabled():
        return tensors
    dtype = autocast_dtype(next(t.device for t in tensors if t is not None))
    if dtype is None:
        return tensors
    return tuple(t.to(dtype) if t is not None and t.dtype in _CAST_FROM else t for t in tensors)
