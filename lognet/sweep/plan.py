"""What a sweep compares: tasks, contenders, seeds, and the settings that make two runs comparable.

Everything here is data. A run is one (task, contender, seed). Its settings are hashed into a fingerprint, so that a
folder never mixes runs with different settings.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..convert.quantizers import check_quantizers
from ..optim import Madam
from ..quant import as_quantizer
from .data import Dataset, load_cifar10, load_digits, load_text
from .errors import SweepError
from .variants import REAL, Variant

_ARGUMENTS = (
    "lr",
    "p_scale",
    "g_bound",
    "beta",
    "momentum",
    "affine",
    "warmup",
    "sign_crossing",
    "rounding",
    "state_bits",
)
MADAM: dict[str, Any] = {name: inspect.signature(Madam).parameters[name].default for name in _ARGUMENTS}
"""Madam's settings, the library's defaults: the same for every task and precision."""

RECIPE = 2
"""Increase this when a change of the training code changes results, so that older runs no longer match."""

MIN_BITS, MAX_BITS = 2, 16


@dataclass(frozen=True)
class Task:
    """A data set, a network and a metric, with the settings that all its runs share."""

    name: str
    title: str
    metric: str
    unit: str
    higher_is_better: bool
    decimals: int
    steps: int
    batch: int
    adam_lr: float
    model: dict[str, Any] = field(hash=False)
    parts: dict[str, list[str]] = field(default_factory=dict, hash=False)
    """The patterns that name the network's "layers", "embeddings" and "output" where these can be factorised."""
    paper: dict[str, str] = field(default_factory=dict, hash=False)
    """The same row in the paper (Bernstein et al. 2020, Tables 1 and 2), by contender key, where it has one."""


TASKS = {
    task.name: task
    for task in (
        Task(
            name="cifar10",
            title="CIFAR-10, ResNet-18",
            metric="test error",
            unit="%",
            higher_is_better=False,
            decimals=2,
            steps=30 * 390,  # 30 epochs of 390 whole batches
            batch=128,
            adam_lr=0.001,
            model={"kind": "ResNet18", "width": 64},
            paper={
                "adam-fp32": "6.6 ± 0.2",
                "madam-fp32": "7.8 ± 0.2",
                "madam-12": "7.0 ± 0.1",
                "madam-10": "7.8 ± 0.3",
                "madam-8": "8.6 ± 1.5",
            },
        ),
        Task(
            name="text",
            title="Characters of a text, 2-layer transformer",
            metric="bits per character",
            unit="",
            higher_is_better=False,
            decimals=3,
            steps=600,
            batch=16,
            adam_lr=0.01,
            model={"kind": "Transformer", "width": 64, "heads": 4, "layers": 2},
            parts={"layers": ["blocks.*"], "embeddings": ["symbol", "position"], "output": ["head"]},
        ),
        Task(
            name="digits",
            title="Handwritten digits, conv net",
            metric="test accuracy",
            unit="%",
            higher_is_better=True,
            decimals=2,
            steps=400,
            batch=64,
            adam_lr=0.003,
            model={"kind": "ConvNet", "width": 32},
        ),
    )
}
"""The tasks on plain layers. The costliest comes first and starts first, so that short runs fill the end of a sweep."""


def task_name(base: str, model: str) -> str:
    """The name of a task's variant: `digits` on real layers, `digits/H` on quaternions."""
    return base if model == REAL else f"{base}/{model}"


def find_base(name: str) -> str:
    """The task of which `name` is a variant."""
    return name.partition("/")[0]


def find_variant(name: str) -> Variant:
    """What a task's name says about its network."""
    return Variant.parse(name.partition("/")[2] or REAL)


@cache
def find_task(name: str) -> Task:
    """A task by name, on any model.

    Raises:
        SweepError: there is none of that name.
    """
    base = find_base(name)
    if base not in TASKS:
        raise SweepError(f"unknown task {base!r}; the tasks are {', '.join(reversed(TASKS))}")
    task, variant = TASKS[base], find_variant(name)
    if name != task_name(base, str(variant)):
        raise SweepError(f"{name!r} is not how a task is written; it is {task_name(base, str(variant))!r}")
    if name == base:
        return task
    model, title = variant.settings(task.model, task.parts), f"{task.title}, {variant.title}"
    if variant.width is None and model["width"] != task.model["width"]:
        title += f", {model['width']} wide"
    return replace(task, name=name, title=title, model=model)


def is_task(name: Any) -> bool:
    try:
        find_task(name)
    except (SweepError, TypeError, AttributeError):
        return False
    return True


def display_order(name: str) -> tuple[Any, ...]:
    """The sort key of a task in tables: short tasks first, each followed by its variants."""
    return (list(reversed(TASKS)).index(find_base(name)), find_variant(name).order)


DEFAULT_TASKS = ("digits", "text")

SCHEDULE: dict[str, Any] = {"kind": "warm-up then cosine", "warmup_share": 0.2, "final_share": 0.02}
"""The learning rate over time, as shares of the run and of the peak: the same for every contender."""


@dataclass(frozen=True)
class Contender:
    """An optimizer at a precision; ``bits``, of the weights, is None in FP32.

    `activation` and `gradient` are names of quantizers (`lognet.quant.as_quantizer`), None in FP32.
    """

    optimizer: str
    bits: int | None
    activation: str | None = None
    gradient: str | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Contender:
        """The contender of a run's record. Older records have no activations and gradients."""
        return cls(record["optimizer"], record["bits"], record.get("activation"), record.get("gradient"))

    @property
    def precision(self) -> str:
        """As ``--precisions`` spells it: ``fp32``, ``8``, ``8/8/8`` or ``8/fixed8/fp32``."""
        if self.bits is None:
            return "fp32"
        if self.quantized:
            return "/".join([str(self.bits), *(name or "fp32" for name in (self.activation, self.gradient))])
        return str(self.bits)

    @property
    def quantized(self) -> bool:
        """Whether activations or gradients are in few bits too."""
        return self.activation is not None or self.gradient is not None

    @property
    def key(self) -> str:
        return f"{self.optimizer}-{self.precision}"

    @property
    def label(self) -> str:
        if self.bits is None:
            return f"FP32 {self.optimizer.capitalize()}"
        return f"{self.precision} Madam" if self.quantized else f"{self.bits}-bit Madam"

    @property
    def order(self) -> tuple[int, int, bool, str]:
        """FP32 Adam, FP32 Madam, then from many bits of weights to few, those with activations in FP32 first."""
        return (0 if self.optimizer == "adam" else 1, -(self.bits or 32), self.quantized, self.precision)


def contenders(precisions: Iterable[str]) -> list[Contender]:
    """The contenders that ``--precisions`` names.

    ``fp32`` stands for both FP32 Adam and FP32 Madam, ``8`` for 8-bit weights, ``8/8/8`` for weights, activations and
    gradients, where the last two are names of quantizers or ``fp32``.
    """
    found: set[Contender] = set()
    for word in precisions:
        if word.lower() == "fp32":
            found |= {Contender("adam", None), Contender("madam", None)}
            continue
        weights, *others = word.split("/")
        if not (weights.isascii() and weights.isdecimal() and MIN_BITS <= int(weights) <= MAX_BITS):
            raise SweepError(
                f"unknown precision {word!r}; use fp32 or a number of bits from {MIN_BITS} to {MAX_BITS}, or"
                " weights/activations/gradients, as in 8/8/8"
            )
        if len(others) not in (0, 2):
            raise SweepError(
                f"unknown precision {word!r}; give weights/activations/gradients, as in 8/8/8 or 8/fixed8/fp32"
            )
        found.add(Contender("madam", int(weights), *(_quantizer_name(word, other) for other in others)))
    return sorted(found, key=lambda c: c.order)


def _quantizer_name(word: str, name: str) -> str | None:
    """The normal form of a quantizer's name: its bits for the log format, None for FP32."""
    if name.lower() == "fp32":
        return None
    try:
        return str(as_quantizer(name)).removeprefix("log")
    except (TypeError, ValueError) as e:
        raise SweepError(f"unknown precision {word!r}: {e}") from e


def load(task: str, source: str | None) -> Dataset:
    if task == "digits":
        return load_digits()
    if task == "text":
        return load_text(Path(source) if source else None)
    if source is None:
        raise SweepError("the task cifar10 needs your copy of the data: --cifar10 DIR")
    return load_cifar10(Path(source))


@dataclass(frozen=True)
class Run:
    """One training run, ready to be sent to a worker."""

    task: str
    contender: Contender
    seed: int
    settings: dict[str, Any] = field(hash=False)
    source: str | None = None

    @property
    def base(self) -> str:
        """The task without its model. Data, their order and the metric depend only on this."""
        return find_base(self.task)

    @property
    def key(self) -> tuple[str, str, int]:
        return (self.task, self.contender.key, self.seed)

    @property
    def steps(self) -> int:
        return int(self.settings["task"]["steps"])

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.settings)

    def as_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            **asdict(self.contender),
            "seed": self.seed,
            "settings": self.settings,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Run:
        return cls(d["task"], Contender.of(d), d["seed"], d["settings"], d["source"])


def fingerprint(settings: dict[str, Any]) -> str:
    """A short hash of settings, which does not depend on the order of the keys."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def task_settings(task: Task, data: Dataset, steps: int | None) -> dict[str, Any]:
    """What all runs of a task share."""
    return {
        "recipe": RECIPE,
        "name": task.name,
        "steps": steps or task.steps,
        "batch": task.batch,
        "model": task.model,
        "schedule": SCHEDULE,
        "data_sha256": data.digest,
    }


def optimizer_settings(task: Task, contender: Contender) -> dict[str, Any]:
    """The settings in which contenders differ."""
    if contender.optimizer == "adam":
        return {"name": "adam", "lr": task.adam_lr, "betas": [0.9, 0.999], "eps": 1e-8}
    madam: dict[str, Any] = {"name": "madam", **MADAM}
    if contender.bits is None:
        return madam
    madam |= {"bits": contender.bits, "init": "quantize"}
    try:
        activation, gradient = check_quantizers(contender.activation, contender.gradient)
    except ImportError as e:
        raise SweepError(str(e)) from e
    made = {"activation": activation, "gradient": gradient}
    return madam | {name: q.describe() for name, q in made.items() if q is not None}


def plan(
    tasks: Sequence[str],
    who: Sequence[Contender],
    seeds: Sequence[int],
    datasets: dict[str, Dataset],
    sources: dict[str, str | None],
    steps: int | None = None,
) -> list[Run]:
    """All runs in the order in which they start.

    The seeds come one after the other, so that an interrupted sweep has whole comparisons. Within a seed the tasks
    alternate, the costlier first. This keeps the estimate of the remaining time steady and all workers busy to the end.
    """
    return [
        Run(
            name,
            contender,
            seed,
            {
                "task": task_settings(find_task(name), datasets[find_base(name)], steps),
                "optimizer": optimizer_settings(find_task(name), contender),
            },
            sources.get(find_base(name)),
        )
        for seed in seeds
        for contender in who
        for name in sorted(tasks, key=display_order, reverse=True)
    ]
