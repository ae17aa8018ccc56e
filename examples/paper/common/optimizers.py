"""The contenders: Madam as lognet has it, Madam as the paper has it, Adam and SGD; and their learning-rate schedules."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

import lognet
from lognet.optim import Madam

BASE_PRECISION = {12: 0.001, 10: 0.005, 8: 0.01}
"""eta_0 by bits. Bernstein et al. 2020, section 6: 0.001 at 12 bits, and at 10 and 8 a larger one, at most eta = O(0.01).
0.005 and 0.01 are ours within that."""


@dataclass(frozen=True)
class Preset:
    """What a recipe says of one contender."""

    lr: float
    schedule: str
    options: dict[str, Any] = field(default_factory=dict)
    """Of torch.optim.Adam or SGD."""


MADAM_PAPER = Preset(0.01, "plateau")
"""eta = 0.01 in all of the paper's runs (Table 1), "decayed by 10 when the loss plateaus"."""
MADAM = Preset(0.2, "cosine")
"""lognet's default and a schedule of ours. Nobody has tuned them on the papers' tasks."""


def wrap(model: nn.Module, args: argparse.Namespace) -> nn.Module:
    """Wrap the model, in place, if --bits gives a number of bits."""
    if args.bits is None:
        return model
    if args.optimizer == "madam-paper":  # section 6: uniform on the ladder below sigma*, every layer at the same width
        eta_0, p_scale = BASE_PRECISION[args.bits], args.p_scale or 3.0
        return lognet.wrap(model, args.bits, base_precision=eta_0, p_scale=p_scale, init="uniform", seed=args.seed)
    return lognet.wrap(model, args.bits, seed=args.seed)


def make_optimizer(params: Iterable[nn.Parameter], args: argparse.Namespace, preset: Preset) -> torch.optim.Optimizer:
    """The optimizer of one module, with --lr over the preset's."""
    lr = args.lr or preset.lr
    if args.optimizer == "madam-paper":  # Algorithm 1: sigma* = 3 sigma unless told otherwise
        return Madam.paper(params, lr, p_scale=args.p_scale or 3.0, seed=args.seed)
    if args.optimizer == "madam":
        return Madam(params, lr, seed=args.seed)
    return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[args.optimizer](params, lr, **preset.options)


class Schedule:
    """The learning rate of one optimizer over a run.

    "plateau": divided by 10 when the loss of the last `patience` evaluation periods has not fallen (Bernstein et al. 2020,
    Table 1; on a ladder down to eta_0, section 6; patience is ours). "milestones": times 0.1 at the shares of the run that
    the recipe names. "cosine": a linear warm-up over 1 % of the run and half a cosine down to 0.01 of the peak.
    "inverse-sqrt": a linear warm-up over `warmup` steps, then by 1 / sqrt(step).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        name: str,
        args: argparse.Namespace,
        total: int,
        milestones: tuple[float, ...],
        warmup: int,
    ) -> None:
        self.optimizer, self.step = optimizer, 0
        self.plateau: ReduceLROnPlateau | None = None
        if name == "plateau":
            on_paper_ladder = args.bits is not None and args.optimizer == "madam-paper"
            floor = BASE_PRECISION[args.bits] if on_paper_ladder else 0.0
            self.plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=args.patience, min_lr=floor)
            return
        factors: dict[str, Callable[[int], float]] = {
            "constant": lambda step: 1.0,
            "milestones": lambda step: 0.1 ** sum(step >= share * total for share in milestones),
            "cosine": lambda step: _cosine(step, max(1, total // 100), total),
            "inverse-sqrt": lambda step: min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5),
        }
        self.peaks, self.factor = [group["lr"] for group in optimizer.param_groups], factors[name]
        self._set()

    def _set(self) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.factor(self.step)

    def after_step(self) -> None:
        """Of training, whether this optimizer had a part in it or not (torch's LambdaLR would warn if it had none)."""
        self.step += 1
        if self.plateau is None:
            self._set()

    def after_period(self, loss: float) -> None:
        """Between two evaluations: its mean loss."""
        if self.plateau is not None:
            self.plateau.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """The rate itself is in the optimizer's."""
        return {"step": self.step, "plateau": None if self.plateau is None else self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a schedule of the same name and run."""
        self.step = state["step"]
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


def _cosine(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
