"""The reference engine: plain torch operations, for every parameter on every device. torch.compile traces its `step`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...quant.random_bits import random16
from ...tensor.log_tensor import LogTensor
from ..affine import affine_codes, affine_floats
from ..directions import adaptive_direction
from ..parameter_step import ParameterStep, Scalars, joined_scalars, set_scalars, values_of
from ..shards import combine, local, sharded_alike
from ..state import AVERAGES, compute_dtype, largest_gradient
from ..update import step_codes, step_floats


class TorchEngine:
    """Makes the steps of all parameters that no other engine accepts."""

    def check(self, steps: Sequence[ParameterStep]) -> list[bool]:
        """For each step, whether all of the full gradient is finite and below `largest_gradient`.

        Completes the records of the sound steps. A parameter without a sound gradient so far has no state.
        """
        for step in steps:
            step.grad = sharded_alike(step.grad.detach(), step.parameter)
        grads = [local(step.grad) for step in steps]
        filled = [grad for grad in grads if grad.numel()]  # the others have no largest entry
        largest = iter(torch._foreach_norm(filled, float("inf")) if filled else ())
        too_large = []
        for step, grad in zip(steps, grads, strict=True):
            top = next(largest) if grad.numel() else grad.new_zeros(())
            limit = largest_gradient(compute_dtype(step.parameter), step.group["state_bits"])
            too_large.append((~(top < limit)).to(torch.uint8))  # NaN too
        flags = values_of(combine(too_large, [step.parameter for step in steps], "max"))
        for step in (step for step, flag in zip(steps, flags, strict=True) if not flag):
            step.complete()
        return [not flag for flag in flags]

    def step(self, steps: Sequence[ParameterStep]) -> None:
        """One step of each of these parameters."""
        set_scalars(steps, as_tensors=torch.compiler.is_compiling())
        together: dict[Any, list[ParameterStep]] = {}
        for step in steps:
            group = step.group
            if group["foreach"] and group["state_bits"] == 32 and not isinstance(step.local, LogTensor):
                together.setdefault((id(group), step.local.dtype, step.local.device), []).append(step)
            else:
                counts = _move(step.local, step.grad, step.state, group, step.scalars)
                if counts is not None and step.counts is not None:
                    step.counts.add_(counts)
        for joint in together.values():
            _move_together(joint)
        if any(step.is_sharded for step in steps):
            _add_up_counts(steps)


def _move(p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any], scalars: Scalars) -> Tensor | None:
    """One parameter's step, arithmetic only. Returns the counts of a LogTensor (`CodeStep.counts`)."""
    grad = grad.to(compute_dtype(p))
    if group["maximize"]:
        grad = -grad
    if isinstance(p, LogTensor) and p.mask is not None:
        grad = grad * p.mask
    r = adaptive_direction(state, grad, group, scalars)
    crossing = group["sign_crossing"]
    if isinstance(p, LogTensor):
        codes, bits16, ladder = p.codes(), None, p._storage.format  # a constant to torch.compile, which p.format is not
        if group["rounding"] == "stochastic":
            bits16 = random16(r.numel(), scalars.key, scalars.start, r.device).view(r.shape)
        if group["affine"]:
            moved = affine_codes(ladder, *codes, r, scalars.relative, scalars.absolute, crossing, bits16)
        else:
            moved = step_codes(*codes, r, scalars.lr, ladder.last_rung, crossing, bits16)
        p.write_codes_(moved.exponent, moved.negative)
        return moved.counts
    w = p.to(grad.dtype)
    if group["affine"]:
        p.copy_(affine_floats(w, r, scalars.relative, scalars.absolute, scalars.sigma_star, crossing))
    else:
        p.copy_(step_floats(w, r, scalars.lr, scalars.sigma_star, crossing))
    return None


def _move_together(steps: Sequence[ParameterStep]) -> None:
    """The steps of float parameters of one group, dtype and device (``foreach=True``), laid end to end."""
    params, states = [step.local for step in steps], [step.state for step in steps]
    sizes = [p.numel() for p in params]
    joined = lambda tensors: torch.cat([t.reshape(-1) for t in tensors])
    names = [name for name in AVERAGES if all(name in state for state in states)]
    state = {name: joined([state[name] for state in states]) for name in names}
    flat, grad = joined(params), joined([step.grad for step in steps]).to(compute_dtype(params[0]))
    _move(flat, grad, state, steps[0].group, joined_scalars([step.scalars for step in steps], sizes, grad))
    for targets, source in [(params, flat), *(([s[name] for s in states], state[name]) for name in names)]:
        pieces = [piece.view(t.shape) for piece, t in zip(source.split(sizes), targets, strict=True)]
        torch._foreach_copy_(list(targets), pieces)


@torch._disable_dynamo  # type: ignore[attr-defined]
def _add_up_counts(steps: Sequence[ParameterStep]) -> None:
    """Add the counts of all local parts to the counts in the states."""
    counted = [step for step in steps if step.is_sharded and step.counts is not None]
    totals = combine([step.counts for step in counted], [step.parameter for step in counted], "sum")  # type: ignore[misc]
    for step, total in zip(counted, totals, strict=True):
        step.state["counts"] += total
