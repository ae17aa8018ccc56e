"""The runs that answer each question, as rows of tables.

A row that needs a tuned learning rate has no runs until the runs of the grid are finished. Planning again then adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .data import load
from .settings import FINE_TUNING, Contender, Run, adam, madam, paper, sgd
from .store import Store
from .tasks import TASKS, Task


def grid_rate(k: int) -> float:
    """The learning rates of a logarithmic grid, four a decade: 0.01, 0.018, 0.03, 0.055, 0.1, ... for k = -8, -7, -6, -5, -4, ...

    >>> [grid_rate(k) for k in range(-8, 3)]
    [0.01, 0.018, 0.03, 0.055, 0.1, 0.18, 0.3, 0.55, 1.0, 1.8, 3.0]
    """
    return float(f"{('1', '1.8', '3', '5.5')[k % 4]}e{k // 4}")


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...] = (0, 1, 2)
    ablation_seeds: tuple[int, ...] = (0, 1)
    warm_up_seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    slowdown: int = 1
    """The steps of every run are divided by this."""
    steps: int | None = None
    """Steps of every run, if given."""
    grids: dict[str, range] = field(default_factory=lambda: {"Adam": range(-14, -2, 2), "SGD": range(-12, 2, 2)})
    """The learning rates to try, half decades, as arguments of `grid_rate`."""
    extensions: int = 3
    """How often a grid is extended by half a decade when its best value is at an end."""
    refined: bool = True
    """Whether to try the quarter decades beside the best value too."""
    bits: tuple[int, ...] = (12, 10, 8, 6, 4)
    long: bool = True

    def steps_of(self, asked: int) -> int:
        return self.steps or max(1, asked // self.slowdown)


FULL = Size()
QUICK = Size(
    seeds=(0, 1),
    ablation_seeds=(0,),
    warm_up_seeds=(0, 1),
    slowdown=4,
    grids={"Adam": range(-12, -6, 2), "SGD": range(-8, -2, 2)},
    extensions=0,
    refined=False,
    bits=(12, 8, 4),
    long=False,
)

SHORT, LONG = 200, 20_000
TUNERS: dict[str, Callable[[float], Contender]] = {"SGD": sgd, "Adam": adam}


@dataclass(frozen=True)
class Row:
    """A line of a table: one contender on one task, over seeds."""

    task: str
    label: str
    runs: tuple[Run, ...]
    reference: tuple[Run, ...] = ()
    """The runs that it is compared with; empty for a row without comparison."""
    field: str = "metric"
    """Of the records."""
    reference_field: str = "metric"


class Planner:
    def __init__(self, size: Size, store: Store) -> None:
        self.size = size
        self.store = store

    def runs(
        self, contender: Contender, task: Task, steps: int | None = None, seeds: tuple[int, ...] | None = None
    ) -> tuple[Run, ...]:
        """A contender's runs, one for each seed."""
        steps = self.size.steps_of(steps or task.steps)
        digest = load(task.data).digest
        return tuple(contender.run(task.name, digest, steps, s) for s in (seeds or self.size.seeds))

    def grid(self, name: str, task: Task, steps: int | None = None) -> tuple[dict[float, Run], float | None]:
        """The runs of an optimizer's grid by learning rate, as far as planned, and the best rate once all are finished.

        Of rates with equal error, the one with the lower training loss is best. The best is None if every rate diverged.
        """
        ks, extensions = list(self.size.grids[name]), self.size.extensions
        while True:
            runs = {k: self.runs(TUNERS[name](grid_rate(k)), task, steps, self.size.seeds[:1])[0] for k in sorted(ks)}
            rates = {grid_rate(k): run for k, run in runs.items()}
            best = self._best(runs, task)
            if best is None:
                return rates, None
            if extensions and best in (min(ks), max(ks)):
                extensions -= 1
                ks.append(best - 2 if best == min(ks) else best + 2)
            elif self.size.refined and best % 2 == 0 and best - 1 not in ks:
                ks += [best - 1, best + 1]
            else:
                return rates, grid_rate(best)

    def _best(self, runs: dict[int, Run], task: Task) -> int | None:
        """The key of the run with the smallest error; None while a record is missing, or if all diverged."""
        records = {k: self.store.get(run) for k, run in runs.items()}
        if None in records.values():
            return None
        scores = {
            k: (task.metric.error(r["metric"]), r["loss"])
            for k, r in records.items()
            if r is not None and r["metric"] is not None
        }
        return min(scores, key=lambda k: scores[k], default=None)

    def tuned(self, name: str, task: Task, steps: int | None = None) -> tuple[Run, ...]:
        """An optimizer's runs at its best learning rate; empty while the rate is unknown."""
        _, best = self.grid(name, task, steps)
        return () if best is None else self.runs(TUNERS[name](best), task, steps)

    def baselines(self, task: Task) -> Iterator[Row]:
        for name in TUNERS:
            rates, best = self.grid(name, task)
            for rate, run in sorted(rates.items()):
                chosen = rate == best
                yield Row(task.name, f"{name}, lr {rate:g}", self.tuned(name, task) if chosen else (run,))

    def bits(self, task: Task) -> Iterator[Row]:
        reference = self.tuned("Adam", task)
        yield Row(task.name, "SGD", self.tuned("SGD", task), reference)
        yield Row(task.name, "Adam", reference)
        for bits in (None, *self.size.bits):
            yield Row(task.name, _madam_label(bits), self.runs(madam(bits), task), reference)

    def paper(self, task: Task) -> Iterator[Row]:
        reference = self.tuned("Adam", task)
        for bits in (None, 12, 10, 8):
            yield Row(
                task.name, f"paper, {bits} bits" if bits else "paper, FP32", self.runs(paper(bits), task), reference
            )

    def lr(self, task: Task) -> Iterator[Row]:
        """One seed for each rate, as in the grids of the baselines."""
        for bits in (None, 8):
            lr = madam(bits).optimizer["lr"]
            for factor in (0.25, 0.5, 1, 2, 4):
                runs = self.runs(madam(bits, lr=lr * factor), task, seeds=self.size.seeds[:1])
                yield Row(task.name, f"{_madam_label(bits)}, lr {lr * factor:g}", runs)

    def ablation(self, task: Task) -> Iterator[Row]:
        changes: list[tuple[str, Contender]] = [("defaults", madam(8))]
        for name, values in ABLATION.items():
            changes += [(f"{name} {value}", madam(8, None, **{name: value})) for value in values]
        changes += [(f"wrap p_scale {value:g}", madam(8, {"p_scale": value})) for value in (3.0, 6.0, 24.0)]
        default = self.runs(madam(8), task, seeds=self.size.ablation_seeds)
        for label, contender in changes:
            runs = self.runs(contender, task, seeds=self.size.ablation_seeds)
            yield Row(task.name, label, runs, () if runs == default else default)

    def state(self, task: Task) -> Iterator[Row]:
        default = self.runs(madam(8), task)
        for bits in (32, 16, 8, 4):
            runs = self.runs(madam(8, state_bits=bits), task)
            yield Row(task.name, f"state_bits {bits}", runs, () if runs == default else default)

    def signs(self, task: Task) -> Iterator[Row]:
        default = self.runs(madam(8), task)
        yield Row(task.name, "signs may change", default)
        yield Row(task.name, "frozen as initialised", self.runs(madam(8, sign_crossing=False), task), default)
        seeded = madam(8, {"sign_seed": "run"}, sign_crossing=False)
        yield Row(task.name, "frozen, drawn from a seed", self.runs(seeded, task), default)

    def fine_tuning(self, task: Task) -> Iterator[Row]:
        """Each row's own runs train its float network, by Adam at its best rate."""
        if task.name not in ("digits", "text"):
            return
        _, best = self.grid("Adam", task)
        for bits in (12, 8):
            runs: tuple[Run, ...] = ()
            if best is not None:
                full = self.runs(adam(best), task)
                starts = [{name: r.settings[name] for name in ("optimizer", "schedule", "steps")} for r in full]
                runs = tuple(
                    madam(bits, lr=0.02, warmup=0).run(
                        task.name, r.settings["data"], max(1, r.steps // 4), r.settings["seed"], FINE_TUNING, start
                    )
                    for r, start in zip(full, starts, strict=True)
                )
            if bits == 12:
                yield Row(task.name, "float, Adam", runs, field="float")
            yield Row(task.name, f"{bits} bits, rounded", runs, runs, "before", "float")
            yield Row(task.name, f"{bits} bits, fine-tuned", runs, runs, "metric", "float")

    def horizons(self, task: Task) -> Iterator[Row]:
        """Adam is tuned for each length. Short runs also have a shorter warm-up."""
        for steps in (SHORT, LONG) if task.cheap and self.size.long else (SHORT,):
            words = f"{self.size.steps_of(steps)} steps"
            reference = self.tuned("Adam", task, steps)
            rates, best = self.grid("Adam", task, steps)
            for rate, run in sorted(rates.items()):
                if run not in reference:
                    yield Row(task.name, f"{words}: Adam, lr {rate:g}", (run,))
            yield Row(task.name, f"{words}: Adam, best lr" + ("" if best is None else f" {best:g}"), reference)
            for bits in (None, 8):
                yield Row(task.name, f"{words}: {_madam_label(bits)}", self.runs(madam(bits), task, steps), reference)
                if steps == SHORT:
                    runs = self.runs(madam(bits, warmup=SHORT // 4), task, steps)
                    yield Row(task.name, f"{words}: {_madam_label(bits)}, warmup {SHORT // 4}", runs, reference)

    def warm_up(self, task: Task) -> Iterator[Row]:
        """This part has more seeds, because a warm-up that is too short makes only some of the runs fail."""
        default = self.runs(madam(8), task, seeds=self.size.warm_up_seeds)
        for steps in (50, 100, 200):
            runs = self.runs(madam(8, warmup=steps), task, seeds=self.size.warm_up_seeds)
            yield Row(task.name, f"warmup {steps}", runs, () if runs == default else default)


ABLATION: dict[str, tuple[Any, ...]] = {
    "affine": (0.0, 0.25, 1.0),
    "momentum": (0.0, 0.5, 0.9),
    "beta": (0.9, 0.98, 0.999),
    "warmup": (0, 50, 200),
    "g_bound": (1.0, 8.0),
    "sign_crossing": (False,),
    "rounding": ("nearest",),
    "bias_correction": (False,),
}
"""Arguments of Madam and the values that they are changed to, one at a time."""

PARTS: dict[str, Callable[[Planner, Task], Iterator[Row]]] = {
    "baselines": Planner.baselines,
    "bits": Planner.bits,
    "paper": Planner.paper,
    "lr": Planner.lr,
    "ablation": Planner.ablation,
    "state": Planner.state,
    "fine-tuning": Planner.fine_tuning,
    "signs": Planner.signs,
    "horizons": Planner.horizons,
    "warm-up": Planner.warm_up,
}


def covered(part: str, tasks: list[str]) -> list[str]:
    """The tasks of a part. Held-out tasks measure the defaults, and are not used to compare their values."""
    held_out = part in ("baselines", "bits", "warm-up")
    others = part != "warm-up"
    return [name for name in tasks if (held_out if TASKS[name].held_out else others)]


def rows(planner: Planner, part: str, tasks: list[str]) -> list[Row]:
    return [row for name in covered(part, tasks) for row in PARTS[part](planner, TASKS[name])]


def wanted(planner: Planner, parts: list[str], tasks: list[str]) -> list[Run]:
    """All known runs of the parts, and the runs that they are compared with, each once."""
    found = [run for part in parts for row in rows(planner, part, tasks) for run in (*row.runs, *row.reference)]
    grids = [run for part in parts for name in covered(part, tasks) for run in _grids(planner, part, TASKS[name])]
    return list(dict.fromkeys([*found, *grids]))


def _grids(planner: Planner, part: str, task: Task) -> list[Run]:
    """The grids on which rows without runs depend."""
    needed = ["Adam"] if part in ("baselines", "bits", "paper", "lr", "fine-tuning") else []
    needed += ["SGD"] if part in ("baselines", "bits", "lr") else []
    return [run for name in needed for run in planner.grid(name, task)[0].values()]


def _madam_label(bits: int | None) -> str:
    return "Madam" if bits is None else f"Madam, {bits} bits"
