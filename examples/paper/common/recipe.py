"""The base class of all recipes. common/loop.py runs them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .optimizers import MADAM, MADAM_PAPER, Preset
from .papers import ROWS, Row
from .place import Place

History = list[tuple[int, dict[str, float]]]
"""(step, results) of every evaluation so far."""


class Recipe:
    """One task of a paper: its data, model, loss and evaluation.

    Subclasses read their data in ``__init__`` and set `period` (steps between evaluations) and `total` (steps of the
    whole run). Everything random in a step depends only on (seed, step, rank), so a resumed run gives the same
    numbers as an uninterrupted one. Other state that a step hands to the next belongs into `carried`.
    """

    metric: ClassVar[str]
    """The result that stands in the paper's row."""
    best: ClassVar[str] = "last"
    """Which evaluation is reported: "last", or "late minimum", the least in the last 5 % of the run."""
    defaults: ClassVar[dict[str, Any]] = {}
    tiny: ClassVar[dict[str, Any]] = {}
    presets: ClassVar[dict[str, Preset]] = {}
    milestones: ClassVar[tuple[float, ...]] = (0.5, 0.75)
    """Shares of the run at which the schedule "milestones" divides the rate by 10."""
    warmup: ClassVar[int] = 4000
    """Steps, of the schedule "inverse-sqrt"."""
    clip: ClassVar[float | None] = None
    """Norm that gradients are clipped to."""

    period: int
    total: int

    def __init__(self, args: argparse.Namespace, place: Place) -> None:
        self.args, self.place = args, place
        self.carried: dict[str, Tensor] = {}
        if args.batch is not None:
            place.share(args.batch)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Put in options of this recipe's own."""

    @property
    def row_key(self) -> str:
        """Of `papers.ROWS`; a key without a row there is a run that the paper does not report."""
        raise NotImplementedError

    @property
    def row(self) -> Row | None:
        """The paper's row, where it has one."""
        return ROWS.get(self.row_key)

    @property
    def differs(self) -> str:
        """The options in which a run differs from the paper's row; empty if there are none."""
        return ""

    def preset(self) -> Preset:
        """Of the contender asked for."""
        return {"madam-paper": MADAM_PAPER, "madam": MADAM, **self.presets}[self.args.optimizer]

    def plan(self, steps_per_epoch: int, period: int | None = None) -> None:
        """Set `total` from --steps or --epochs, and `period`: default, an epoch."""
        self.total = self.args.steps or self.args.epochs * steps_per_epoch
        self.period = period or steps_per_epoch

    def generator(self, *purpose: int) -> torch.Generator:
        """Random numbers that depend only on the seed and the purpose."""
        key = self.args.seed + 1
        for number in purpose:
            key = (key * 1_000_003 + number + 1) % 2**61
        return torch.Generator().manual_seed(key)

    def build(self) -> nn.Module:
        """The float model, on the CPU."""
        raise NotImplementedError

    def parts(self, model: nn.Module) -> list[nn.Module]:
        """The modules that have an optimizer each."""
        return [model]

    def batches(self, first: int) -> Iterator[Any]:
        """This process's batches, endlessly, from step `first` on."""
        raise NotImplementedError

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """The loss of this process's share of a batch."""
        raise NotImplementedError

    def update(self, networks: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer], batch: Any) -> Tensor:
        with self.place.autocast():
            loss = self.loss(networks[0], batch)
        optimizers[0].zero_grad()
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(networks[0].parameters(), self.clip)
        optimizers[0].step()
        return loss.detach()

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        """Results on held-out data, the same on all processes (`Place.sum`); `final`: of the last evaluation."""
        raise NotImplementedError

    def reported(self, history: History, total: int) -> float | None:
        """The result to print beside the paper's figure, from the evaluations of a run of `total` steps."""
        found = [results[self.metric] for step, results in history if self.metric in results]
        if self.best == "late minimum":
            late = [r[self.metric] for step, r in history if self.metric in r and step >= 0.95 * total]
            return min(late, default=None)
        return found[-1] if found else None


class PictureRecipe(Recipe):
    """The base of recipes that classify pictures: cross-entropy, and top-1 on held-out pictures."""

    mean: Tensor
    deviation: Tensor
    """Of each channel (3, 1, 1), of pictures in 0 .. 1."""

    def normalise(self, pictures: Tensor) -> Tensor:
        """uint8 to about zero mean and unit variance in each channel."""
        return (pictures.float() / 255 - self.mean) / self.deviation

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(network(self.normalise(batch[0])), batch[1])

    def top1(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], count: int) -> dict[str, float]:
        """In per cent of `count` pictures, of which `batches` has this process's share."""
        right, device = torch.zeros((), device=self.place.device), self.place.device
        for x, y in batches:
            right += (model(self.normalise(x.to(device))).argmax(1) == y.to(device)).sum()
        accuracy = 100 * self.place.sum(right)[0] / count
        return {"accuracy": accuracy, "error": 100 - accuracy}
