"""One run, from its settings to its record: the same code for every contender."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
import warnings
from typing import Any

import torch
from torch import nn

import lognet
from lognet.optim import Madam
from lognet.sweep import schedule, stream

from .data import load
from .settings import Options, Run
from .tasks import TASKS, Batches, Task

Record = dict[str, Any]


def share(settings: Options, step: int, steps: int) -> float:
    """The share of the peak learning rate at a step."""
    return 1 - step / steps if settings["kind"] == "linear decay" else schedule(settings, step, steps)


def build(run: Run) -> nn.Module:
    """The float network. Its initial values depend only on task and seed."""
    task = TASKS[run.task]
    torch.manual_seed(int(torch.randint(2**31, (), generator=stream(run.task, run.settings["seed"], "init"))))
    return task.build(load(task.data))


def make_optimizer(net: nn.Module, options: Options, seed: int) -> torch.optim.Optimizer:
    arguments = {name: value for name, value in options.items() if name != "name"}
    if options["name"] == "Madam":
        return Madam(net.parameters(), **arguments, seed=seed)
    if options["name"] == "Adam":
        arguments["betas"] = tuple(arguments["betas"])
        return torch.optim.Adam(net.parameters(), **arguments)
    return torch.optim.SGD(net.parameters(), **arguments)


def fit(
    task: Task,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Options,
    steps: int,
    feed: Batches,
    random: torch.Generator,
) -> float | None:
    """Train. Returns the mean loss of the last tenth of the steps, or None as soon as a loss is not finite."""
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(settings, step, steps))
    net.train()
    tail = []
    for step in range(steps):
        loss = task.update(net, optimizer, *next(feed), random)
        if not math.isfinite(loss):
            return None
        rate.step()
        if step >= steps * 9 // 10:
            tail.append(loss)
    return sum(tail) / len(tail)


def measure(run: Run, net: nn.Module) -> float | None:
    """The metric on held-out data, or None if it is not finite. The random numbers are always the same."""
    task = TASKS[run.task]
    net.eval()
    value = task.evaluate(net, load(task.data), stream(run.task, run.settings["seed"], "evaluation"))
    return value if math.isfinite(value) else None


def train(run: Run) -> Record:
    """Train one run and return its record. The metric of a run that diverges is None."""
    settings, task = run.settings, TASKS[run.task]
    data, seed = load(task.data), settings["seed"]
    if data.digest != settings["data"]:
        raise RuntimeError(f"the data of {run.task} are not those that the run was planned for")
    started, started_cpu = time.perf_counter(), time.process_time()
    record: Record = {"settings": settings, "metric": None, "loss": None}
    net = build(run)
    feed = task.batches(data, task.batch, stream(run.task, seed, "order"))
    random = stream(run.task, seed, "noise")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        if settings["start"] is not None:
            first = settings["start"]
            optimizer = make_optimizer(net, first["optimizer"], seed)
            fit(task, net, optimizer, first["schedule"], first["steps"], feed, random)
            record["float"] = measure(run, net)
            del optimizer  # it would keep the parameters that are replaced next
        if settings["wrap"] is not None:
            lognet.wrap(net, **settings["wrap"], seed=seed)
        if settings["start"] is not None:
            record["before"] = measure(run, net)
        optimizer = make_optimizer(net, settings["optimizer"], seed)
        record["loss"] = fit(task, net, optimizer, settings["schedule"], settings["steps"], feed, random)
        if record["loss"] is not None:
            record["metric"] = measure(run, net)
    optimizer.zero_grad()  # gradients are not counted, because they exist only between a backward pass and a step
    return {
        **record,
        "status": "ok" if record["metric"] is not None else "diverged",
        "warnings": sorted({str(w.message) for w in heard}),
        "parameters": sum(p.numel() for p in net.parameters()),
        "weight_bytes": lognet.held_bytes(*net.parameters()),
        "training_bytes": lognet.held_bytes(*net.parameters(), optimizer),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - started_cpu,
        "machine": machine(),
        "versions": {
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "lognet": lognet.__version__,
        },
    }


def machine() -> str:
    """The processor, the number of cores and the system."""
    model = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    return f"{model or 'unknown processor'}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
