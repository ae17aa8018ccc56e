"""The learning rates of every optimizer, a panel for each task: how much worse than its best each rate is."""

from __future__ import annotations

import math
from pathlib import Path

from .parts import TUNERS, Planner
from .settings import Run
from .store import Store
from .tasks import TASKS, Task

TICKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20)
COLORS = {"SGD": "#7f7f7f", "Adam": "#1f77b4", "Madam": "#d62728", "Madam, 8 bits": "#ff9d45"}


def errors(runs: dict[float, Run], task: Task, store: Store) -> dict[float, float]:
    """Error over the smallest error, by learning rate; infinite where training diverged, absent where a run is missing."""
    found = {}
    for rate, run in sorted(runs.items()):
        record = store.get(run)
        if record is not None:
            found[rate] = math.inf if record["metric"] is None else task.metric.error(record["metric"])
    least = min(found.values(), default=math.inf)
    return {} if math.isinf(least) else {rate: error / least for rate, error in found.items()}


def curves(planner: Planner, task: Task) -> dict[str, dict[float, float]]:
    runs: dict[str, dict[float, Run]] = {name: planner.grid(name, task)[0] for name in TUNERS}
    for row in planner.lr(task):
        run = row.runs[0]
        runs.setdefault(row.label.rpartition(",")[0], {})[run.settings["optimizer"]["lr"]] = run
    return {name: errors(found, task, planner.store) for name, found in runs.items()}


def draw(planner: Planner, tasks: list[str], folder: Path) -> None:
    """Write ``learning_rates.svg`` and ``.png``."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    columns = min(4, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for name, panel in zip(
        tasks, panels, strict=False
    ):  # tasks first, because zip takes one more from its first argument
        for label, found in curves(planner, TASKS[name]).items():
            finite = {rate: error for rate, error in found.items() if math.isfinite(error)}
            panel.plot(list(finite), list(finite.values()), "o-", label=label, color=COLORS[label], ms=3)
        panel.set(title=TASKS[name].title, xscale="log", yscale="log")
        panel.title.set_fontsize(8)
        panel.tick_params(labelsize=7, which="both")
        panel.set_ylim(top=min(panel.get_ylim()[1], 25))  # larger errors are cut off
        panel.yaxis.set_major_locator(FixedLocator(TICKS))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
    for panel in panels:  # hide the unused panels
        panel.set_visible(False)
    first = figure.axes[0]
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    figure.supxlabel("learning rate", fontsize=8)
    figure.supylabel("error, over the optimizer's least", fontsize=8)
    for ending in ("svg", "png"):
        figure.savefig(folder / f"learning_rates.{ending}", dpi=150)
