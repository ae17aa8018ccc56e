"""The state that Madam keeps for every parameter: two averages in 32 bits or fewer, and some numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..quant.block_format import BlockFormat
from ..quant.log_format import in_pieces, typical_magnitude
from ..tensor.log_tensor import LogTensor
from .shards import full, local
from .update import root

STATE_BITS = (32, 16, 8, 4)
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}
AVERAGES = tuple(_SIGNED)


def prepare_state(state: dict[str, Any], parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
    """Bring the state of a parameter into the form that its group asks for. At the first step it is made.

    Nothing depends on the value of a parameter before that. The entries are

    - ``step``, the steps made;
    - ``exp_avg_sq``, g2bar, and with momentum ``exp_avg``: see `add_average`;
    - ``sigma``, the typical magnitude of the weights, a float64 number on the CPU because the host needs it;
    - ``counts`` for LogTensors, int64 (3,): the weights with a gradient, those among them that stayed on their rung, and
      the sign crossings, summed over all steps.

    Args:
        grad: the gradient of `parameter`, sharded as it is.
    """
    dtype, bits = compute_dtype(parameter), group["state_bits"]
    if not state:
        state["step"] = torch.tensor(0.0)
        add_average(state, "exp_avg_sq", grad, dtype, bits)
    recode_averages(state, grad, dtype, bits)  # if the group's state_bits have been changed
    if isinstance(local(parameter), LogTensor) and "counts" not in state:  # the state may be that of the float model
        state["counts"] = torch.zeros(3, dtype=torch.int64, device=grad.device)
    if "sigma" not in state:
        state["sigma"] = torch.tensor(_typical_magnitude(full(parameter), group["p_scale"]), dtype=torch.float64)
    if group["momentum"] and "exp_avg" not in state:
        add_average(state, "exp_avg", grad, dtype, bits)


def compute_dtype(p: Tensor) -> torch.dtype:
    """The dtype that a parameter's step is computed in, and its 32-bit state is kept in."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def largest_gradient(dtype: torch.dtype, bits: int) -> float:
    """The bound that every gradient must be below: state of 32 bits keeps its square, of fewer bits a scale in float32."""
    if bits == 32:
        return torch.finfo(dtype).max ** 0.5
    return float("inf") if dtype == torch.float32 else torch.finfo(torch.float32).max


def state_format(name: str, bits: int) -> BlockFormat:
    """The format of the average `name` in fewer than 32 bits."""
    known = STATE_BITS[STATE_BITS.index(bits)]  # a constant to torch.compile, where `bits` may be a symbol
    return BlockFormat(known, _SIGNED[name])


def add_average(state: dict[str, Any], name: str, like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Add an average of zeros to the state of a parameter.

    Args:
        name: "exp_avg", of gradients, or "exp_avg_sq", of their squares.
        like: a tensor of the parameter's shape, on its device.
        dtype: of 32-bit state (float64 for float64 parameters).
        bits: one of `STATE_BITS`. Below 32 there are two entries: ``state[name]``, the codes, and
            ``state[name + "_scale"]``, a float32 for every block of them, in units of the gradient. For means the scale
            bounds the block's averages, for squares their roots, because squares may lie beyond float32. The entry
            ``state["state_bits"]`` tells such state from others.
    """
    if bits == 32:
        state[name] = torch.zeros_like(like, dtype=dtype)
    else:
        state[name], state[name + "_scale"] = state_format(name, bits).zeros(like.numel(), like.device)
        state["state_bits"] = bits


def recode_averages(state: dict[str, Any], like: Tensor, dtype: torch.dtype, bits: int) -> None:
    """Convert the averages of a parameter to `bits` bits if they have others: exactly to 32, to nearest rungs below.

    The arguments are those of `add_average`.
    """
    held = state.get("state_bits", bits if "exp_avg_sq_scale" in state else 32)
    if held == bits:
        return
    for name in [name for name in AVERAGES if name in state]:
        values, scale = state.pop(name).reshape(-1), state.pop(name + "_scale", None)
        power = 1 if _SIGNED[name] else 2  # of the gradient's unit, which scales are in
        if scale is not None:
            levels = BlockFormat.blocks(state_format(name, held).levels(values, like.numel()))
            values = (levels * scale.to(dtype).unsqueeze(1) ** power).view(-1)[: like.numel()]
        if bits == 32:
            state[name] = values.view(like.shape).to(dtype)
        else:
            blocks = BlockFormat.blocks(values)
            top = blocks.abs().amax(dim=1, keepdim=True)
            units = torch.where(top > 0, blocks / top, 0).view(-1)[: like.numel()]
            state[name] = state_format(name, bits).encode(units.to(torch.float32))
            state[name + "_scale"] = (top if power == 1 else root(top)).to(torch.float32).view(-1)
    state["state_bits"] = bits
    if bits == 32:
        del state["state_bits"]


def _typical_magnitude(p: Tensor, p_scale: float) -> float:
    """`typical_magnitude`, also of a LogTensor made from zeros: all its weights are on the lowest rung, so its scale tells."""
    lowest = lambda w: isinstance(w, LogTensor) and bool((w.exponent == w.format.last_rung).all())
    if isinstance(p, LogTensor) and p.numel() and all(map(lowest, in_pieces(p))):
        return float(p.scale) / p_scale
    return typical_magnitude(p)
