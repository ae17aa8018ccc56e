"""The training loop of all recipes. It resumes, logs, and runs on one process or on those of torchrun."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import lognet
from lognet.saving import write_atomically

from . import checkpoint
from .optimizers import Schedule, make_optimizer, wrap
from .options import parse
from .place import Place
from .recipe import History, Recipe

RESUMED_DIFFERENTLY = {"data", "out", "device", "workers", "log_every", "save_every"}
"""Options that may change when a run is resumed; the others make another run."""


def main(recipe: type[Recipe], argv: Sequence[str] | None = None) -> None:
    args = parse(recipe.__doc__ or "", argv, recipe.add_options, recipe.defaults, recipe.tiny)
    with Place.of(args.device, args.amp) as place:
        Run(recipe(args, place), args, place).train()


class Run:
    """One run: ``checkpoint.pt``, ``log.jsonl`` and, at its end, ``result.json`` in the folder --out."""

    def __init__(self, recipe: Recipe, args: argparse.Namespace, place: Place) -> None:
        self.recipe, self.args, self.place = recipe, args, place
        self.total = min(recipe.total, args.limit_steps or recipe.total)
        self.settings = {k: str(v) for k, v in sorted(vars(args).items()) if k not in RESUMED_DIFFERENTLY}
        self.settings["processes"] = str(place.world)
        torch.manual_seed(args.seed)
        self.model = wrap(recipe.build(), args).to(place.device)
        self.parts = recipe.parts(self.model)
        preset = recipe.preset()
        self.optimizers = [make_optimizer(part.parameters(), args, preset) for part in self.parts]
        name = args.schedule or preset.schedule
        shape = (name, args, recipe.total, recipe.milestones, recipe.warmup)
        self.schedules = [Schedule(optimizer, *shape) for optimizer in self.optimizers]
        self.step, self.seconds = 0, 0.0
        self.sum = torch.zeros((), dtype=torch.float64, device=place.device)  # of the losses of this period
        self.history: History = []
        self._resume()
        if place.main:
            args.out.mkdir(parents=True, exist_ok=True)
            self.log = checkpoint.Log(args.out / "log.jsonl", self.step)

    def train(self) -> None:
        """Run all remaining steps, then print the row."""
        recipe, place = self.recipe, self.place
        networks = [place.parallel(part) for part in self.parts]
        batches = recipe.batches(self.step)
        started = time.monotonic() - self.seconds
        self.model.train()
        while self.step < self.total:
            batch = next(batches)
            torch.manual_seed(_key(self.args.seed, self.step, place.rank))  # of dropout and the like
            loss = recipe.update(networks, self.optimizers, batch)
            self.sum += loss
            self.step += 1
            for schedule in self.schedules:
                schedule.after_step()
            self.seconds = time.monotonic() - started
            last = self.step == self.total
            if self.step % self.args.log_every == 0 or last:
                self._log(loss=self._mean(loss))
            if self.step % recipe.period == 0 or last:
                self._evaluate(last)
            if self.step % self.args.save_every == 0 or last:
                self._save()
        self._finish()

    def _evaluate(self, last: bool) -> None:
        steps = (self.step - 1) % self.recipe.period + 1
        loss = self._mean(self.sum / steps)
        self.sum.zero_()
        for schedule in self.schedules:
            schedule.after_period(loss)
        self.place.align(self.model)
        self.model.eval()
        with torch.no_grad(), self.place.autocast():
            results = self.recipe.evaluate(self.model, last)
        self.model.train()
        self.history.append((self.step, results))
        self._log(train_loss=loss, **results)

    def _log(self, **values: float) -> None:
        if self.place.main:
            lr = self.optimizers[0].param_groups[0]["lr"]
            self.log.write(step=self.step, **values, lr=float(lr), seconds=round(self.seconds, 3))

    def _mean(self, loss: Tensor) -> float:
        total, processes = self.place.sum(loss, 1)
        mean = total / processes
        if math.isfinite(mean):
            return mean
        raise SystemExit(f"error: the loss is {mean} near step {self.step}: this run has diverged; try a smaller --lr")

    def _save(self) -> None:
        carried = self.place.gather({name: tensor.cpu() for name, tensor in self.recipe.carried.items()})
        if self.place.main:
            state = {
                "settings": self.settings,
                "step": self.step,
                "seconds": self.seconds,
                "sum": self.sum,
                "history": self.history,
                "carried": carried,
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "schedules": [schedule.state_dict() for schedule in self.schedules],
            }
            checkpoint.save(self.args.out / "checkpoint.pt", state)

    def _resume(self) -> None:
        state = checkpoint.load(self.args.out / "checkpoint.pt", self.place.device)
        if state is None:
            return
        changed = {
            k for k in state["settings"].keys() | self.settings if state["settings"].get(k) != self.settings.get(k)
        }
        if changed:
            raise SystemExit(
                f"error: {self.args.out} holds a run with other settings of {', '.join(sorted(changed))}: give this one"
                " another --out, or the options it was begun with"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        self.step, self.seconds, self.sum = state["step"], state["seconds"], state["sum"]
        self.history = [(step, results) for step, results in state["history"]]
        carried = state["carried"][self.place.rank]
        self.recipe.carried = {name: tensor.to(self.place.device) for name, tensor in carried.items()}
        if self.place.main:
            print(f"resumed at step {self.step} of {self.total}", flush=True)

    def _finish(self) -> None:
        if not self.place.main:
            return
        recipe, args = self.recipe, self.args
        here, row = recipe.reported(self.history, self.total), recipe.row
        result: dict[str, Any] = {
            "row": recipe.row_key,
            "metric": recipe.metric,
            "paper": None if row is None else row.figure,
            "here": here,
            "complete": self.total == recipe.total and not args.tiny,
            "steps": self.step,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "bytes": lognet.held_bytes(self.model),
            "settings": self.settings,
        }
        text = json.dumps(result, indent=1) + "\n"
        write_atomically(args.out / "result.json", text)
        print("\n".join(_lines(recipe, result)), flush=True)


def _lines(recipe: Recipe, result: dict[str, Any]) -> list[str]:
    """The row beside the paper's."""
    args, row, here = recipe.args, recipe.row, result["here"]
    bits = "float" if args.bits is None else f"{args.bits}-bit"
    lines = [f"{recipe.row_key}: {recipe.metric if row is None else f'{row.what}: {row.unit}'}"]
    lines.append(f"  paper  {'does not report this run' if row is None else f'{row}  ({row.source})'}")
    value = "not computed" if here is None else f"{here:.4g}"
    lines.append(
        f"  here   {value}  (--optimizer {args.optimizer}, {bits} weights, seed {args.seed}, {result['steps']} of"
        f" {recipe.total} steps, {result['parameters']:,} parameters in {result['bytes']:,} bytes)"
    )
    if not result["complete"]:
        lines.append("  NOTE   cut short or --tiny: not to be compared with the paper's figure")
    if row is not None and recipe.differs:
        lines.append(f"  NOTE   {recipe.differs}")
    return lines


def _key(seed: int, step: int, rank: int) -> int:
    return ((seed * 1_000_003 + step) * 65_537 + rank) % 2**61
