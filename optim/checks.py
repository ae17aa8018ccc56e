"""Checks of Madam's arguments, gradients and state dicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsFloat

from torch import Tensor

from ..quant.random_bits import check_rounding
from .state import STATE_BITS


def check_hyperparameters(group: dict[str, Any]) -> None:
    """Raise ValueError or TypeError if a hyperparameter is out of bounds or of the wrong type."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    for name in ("lr", "p_scale", "g_bound", "beta", "momentum", "affine", "warmup", "state_bits"):
        if isinstance(group[name], str) or not isinstance(group[name], SupportsFloat):
            raise TypeError(f"{name} must be a number, got {group[name]!r}")
    for name in ("sign_crossing", "bias_correction", "maximize", "foreach"):
        if not (name == "foreach" and group[name] is None) and not isinstance(group[name], (bool, int)):
            raise TypeError(f"{name} must be True or False, got {group[name]!r}")
    _require(group, "lr", float(lr) >= 0, "at least 0 and finite")
    _require(group, "p_scale", group["p_scale"] > 0, "positive and finite")
    _require(group, "g_bound", group["g_bound"] > 0, "positive")
    _require(group, "beta", 0 <= group["beta"] < 1, "in [0, 1)")
    _require(group, "momentum", 0 <= group["momentum"] < 1, "in [0, 1)")
    _require(group, "affine", 0 <= group["affine"] <= 1, "in [0, 1]")
    _require(group, "warmup", group["warmup"] >= 0, "at least 0 and finite")
    check_rounding(group["rounding"])
    check_state_bits(group)
    if not isinstance(group["seed"], int):
        raise TypeError(f"seed must be an int, got {group['seed']!r}")
    if group.get("weight_decay"):
        raise ValueError(
            f"Madam has no weight_decay (got {group['weight_decay']}), because sigma* bounds the weights. To regularise"
            " more, lower p_scale: in Madam for float parameters, in lognet.wrap for LogTensors"
        )


def check_state_bits(group: dict[str, Any]) -> None:
    """Raise ValueError if `state_bits` is not one of `STATE_BITS`."""
    _require(group, "state_bits", group["state_bits"] in STATE_BITS, "one of " + ", ".join(map(str, STATE_BITS)))


def refuse_sparse(grads: Iterable[Tensor]) -> None:
    """Raise RuntimeError if a gradient is sparse."""
    if any(grad.is_sparse for grad in grads):
        raise RuntimeError("Madam does not support sparse gradients; use sparse=False in the Embedding")


def check_state_dict(state_dict: dict[str, Any], groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
    """Raise ValueError if a state dict does not come from Madam with the parameters of these groups."""
    for saved, group in zip(state_dict["param_groups"], groups, strict=False):  # torch compares the lengths
        if not {"p_scale", "g_bound"} & saved.keys():
            raise ValueError(
                f"this is the state dict of another optimizer: its groups have {', '.join(saved)}, but not Madam's p_scale"
                " and g_bound. Start Madam without it"
            )
        check_hyperparameters({**defaults, **saved})
        for index, p in zip(saved["params"], group["params"], strict=False):
            average = state_dict["state"].get(index, {}).get("exp_avg_sq")
            if isinstance(average, Tensor) and average.is_floating_point() and average.shape != p.shape:
                raise ValueError(
                    f"parameter {index} has shape {tuple(p.shape)} and its state in the state dict has"
                    f" {tuple(average.shape)}: build the model, and list its parameters, as when it was saved"
                )


def _require(group: dict[str, Any], name: str, holds: bool, bounds: str) -> None:
    value = float(group[name])
    if not holds or value != value or (value == float("inf") and name != "g_bound"):
        raise ValueError(f"{name} must be {bounds}, got {group[name]}")
