"""One run: everything that its result depends on, as plain data, and its hash."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import lognet
from lognet.optim import Madam
from lognet.quant import LogFormat

RECIPE = 2
"""Increase this when a change of the suite or the library changes results. All runs are then made anew."""

SCHEDULE: dict[str, Any] = {"kind": "warm-up then cosine", "warmup_share": 0.05, "final_share": 0.02}
FINE_TUNING: dict[str, Any] = {"kind": "linear decay"}

Options = dict[str, Any]


@dataclass(frozen=True)
class Run:
    text: str
    """The settings as canonical JSON, so that runs can be compared and hashed."""

    @property
    def settings(self) -> Options:
        return json.loads(self.text)

    @property
    def task(self) -> str:
        return self.settings["task"]

    @property
    def steps(self) -> int:
        """The steps of the run, with those of its first training."""
        start = self.settings["start"]
        return self.settings["steps"] + (0 if start is None else start["steps"])

    @property
    def key(self) -> str:
        """Task and hash: the name of its file."""
        return f"{self.task}-{hashlib.sha256(self.text.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class Contender:
    """An optimizer and the form of the weights, with every argument spelled out, the library's defaults included.

    So a changed default makes another run, and an argument with its default value makes the same run.
    """

    optimizer: Options
    wrap: Options | None = None

    def run(
        self,
        task: str,
        digest: str,
        steps: int,
        seed: int,
        schedule: Options = SCHEDULE,
        start: Options | None = None,
    ) -> Run:
        """This contender on a task; `start` is a first training of the float network, by "optimizer" and "steps"."""
        wrap = None if self.wrap is None else {**self.wrap}
        if wrap is not None and wrap["sign_seed"] == "run":
            wrap["sign_seed"] = seed
        settings = {
            "recipe": RECIPE,
            "task": task,
            "data": digest,
            "steps": steps,
            "seed": seed,
            "schedule": schedule,
            "optimizer": self.optimizer,
            "wrap": wrap,
            "start": start,
        }
        return Run(json.dumps(settings, sort_keys=True, allow_nan=False))


def adam(lr: float) -> Contender:
    return Contender({"name": "Adam", "lr": lr, "betas": [0.9, 0.999], "eps": 1e-8})


def sgd(lr: float) -> Contender:
    return Contender({"name": "SGD", "lr": lr, "momentum": 0.9})


def madam(bits: int | None, wrap: Options | None = None, **changes: Any) -> Contender:
    """Madam with the library's defaults and the given changes. `wrap` has the changes for `lognet.wrap`."""
    return _madam(Madam, bits, wrap, changes)


PAPER_BASE_PRECISION = {12: 0.001, 10: 0.005, 8: 0.01}
"""eta_0 by bits. The paper gives 0.001 at 12 bits and says of 10 and 8 only that it is larger and at most eta, 0.01 (Bernstein
et al. 2020, section 6, implementation details): 0.005 and 0.01 are ours within that."""


def paper(bits: int | None) -> Contender:
    """The paper's settings, its start of B-bit weights included: uniform on the ladder."""
    wrap = None if bits is None else {"p_scale": 3.0, "base_precision": PAPER_BASE_PRECISION[bits], "init": "uniform"}
    return _madam(Madam.paper, bits, wrap, {})


def _madam(make: Callable[..., Madam], bits: int | None, wrap: Options | None, changes: Options) -> Contender:
    made = make([torch.nn.Parameter(torch.ones(1))], **changes)
    optimizer = {name: value for name, value in made.defaults.items() if name != "seed"}
    if bits is None:
        return Contender({"name": "Madam", **optimizer})
    parameters = inspect.signature(lognet.wrap).parameters
    given = {name: parameters[name].default for name in ("base_precision", "p_scale", "init", "sign_seed")}
    form = {"bits": bits, **given, **(wrap or {})}
    form["base_precision"] = LogFormat(bits, form["base_precision"]).base_precision
    return Contender({"name": "Madam", **optimizer}, form)
