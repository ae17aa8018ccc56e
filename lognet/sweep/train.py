"""One training run, from a seed to a record: the same code for every contender."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..convert import algebraize
from ..convert.compress import compress
from ..convert.factorizations import PHM, Kronecker, LowRank, Word2KetXS
from ..convert.wrap import wrap
from ..measure import flops, held_bytes
from ..optim import Madam
from ..tensor.log_tensor import LogTensor
from .data import CONTEXT, Dataset, crop_and_flip, epoch_order, normalise_cifar10, text_windows
from .models import ConvNet, ResNet18, Transformer
from .plan import MADAM, Run
from .schema import CURVE_POINTS, HISTOGRAM_BINS

Progress = Callable[[int, float], None]

_FACTORS: dict[str, Callable[..., Any]] = {c.__name__: c for c in (PHM, Kronecker, LowRank, Word2KetXS)}


def stream(task: str, seed: int, purpose: str) -> torch.Generator:
    """Random numbers that depend only on task, seed and purpose, so that every contender gets the same ones.

    Args:
        task: name of a task.
        seed: of the run.
        purpose: what they are for: "order", "init" or any other word.

    Returns:
        A generator on the CPU.

    >>> [bool((torch.rand(9, generator=stream("text", 0, "order")) == torch.rand(9, generator=g)).all())
    ...  for g in (stream("text", 0, "order"), stream("text", 1, "order"))]
    [True, False]
    """
    h = hashlib.sha256(f"{task}/{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(h[:7], "big"))


def build(run: Run, data: Dataset) -> nn.Module:
    """The float network of a task, initialised from the seed alone."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=stream(run.base, run.seed, "init"))))
    model = dict(run.settings["task"]["model"])
    kind, algebra, factors = model.pop("kind"), model.pop("algebra", None), model.pop("factors", ())
    if kind == "Transformer":
        net: nn.Module = Transformer(data.classes, CONTEXT, **model)
    else:
        net = {"ConvNet": ConvNet, "ResNet18": ResNet18}[kind](data.classes, **model)
    if algebra is not None:  # input and output stay real, because their widths are not multiples of the tuple size
        algebraize(net, algebra, exclude="head", init="glorot")
    if factors:
        compress(net, {pattern: _FACTORS[kind](*numbers) for pattern, kind, *numbers in factors}, min_parameters=1)
    return net


def batches(run: Run, data: Dataset, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless training batches in an order that depends on task and seed alone."""
    order, extra = (stream(run.base, run.seed, purpose) for purpose in ("order", "augmentation"))
    size = run.settings["task"]["batch"]
    if run.base == "text":
        window = torch.arange(CONTEXT + 1)
        while True:
            starts = torch.randint(len(data.train_x) - CONTEXT, (size,), generator=order)
            cut = data.train_x[starts[:, None] + window].to(device)
            yield cut[:, :-1], cut[:, 1:]
    while True:
        for chosen in epoch_order(len(data.train_x), size, order):
            x, y = data.train_x[chosen].to(device), data.train_y[chosen].to(device)
            yield (normalise_cifar10(crop_and_flip(x, extra)) if run.base == "cifar10" else x), y


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy in nats, over examples or over characters."""
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


@torch.no_grad()
def evaluate(run: Run, model: nn.Module, data: Dataset, device: torch.device) -> float:
    """The metric of the task on the held-out part."""
    model.eval()
    if run.base == "text":
        x, y = text_windows(data.test_x)
        nats = [
            loss_of(model, a.to(device), b.to(device)) * b.numel()
            for a, b in zip(x.split(64), y.split(64), strict=True)
        ]
        return float(torch.stack(nats).sum()) / y.numel() / math.log(2)
    right = 0
    for x, y in zip(data.test_x.split(500), data.test_y.split(500), strict=True):
        inputs = normalise_cifar10(x.to(device)) if run.base == "cifar10" else x.to(device)
        right += int((model(inputs).argmax(1).cpu() == y).sum())
    accuracy = 100 * right / len(data.test_x)
    return 100 - accuracy if run.base == "cifar10" else accuracy


def make_optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a contender; for B bits the model is wrapped first, in place."""
    o = run.settings["optimizer"]
    if o["name"] == "adam":
        return torch.optim.Adam(model.parameters(), lr=o["lr"], betas=tuple(o["betas"]), eps=o["eps"])
    if run.contender.bits is not None:
        few = run.contender
        wrap(
            model,
            bits=o["bits"],
            p_scale=o["p_scale"],
            init=o["init"],
            seed=run.seed,
            activation=few.activation,
            gradient=few.gradient,
        )
    return Madam(model.parameters(), **{name: o[name] for name in MADAM}, seed=run.seed)


def schedule(settings: dict[str, Any], step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: a linear warm-up, then a cosine down to a floor.

    Args:
        settings: "warmup_share", the share of the steps in which the rate rises, and "final_share", the floor as a share
            of the peak.
        step: counted from 0.
        steps: in all.

    >>> [round(schedule({"warmup_share": 0.2, "final_share": 0.02}, step, 100), 2) for step in (0, 19, 60, 100)]
    [0.05, 1.0, 0.51, 0.02]
    """
    warmup = max(1, round(settings["warmup_share"] * steps))
    if step < warmup:
        return (step + 1) / warmup
    floor = settings["final_share"]
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def log_tensors(model: nn.Module) -> list[LogTensor]:
    return [p for p in model.parameters() if isinstance(p, LogTensor)]


def histogram(model: nn.Module) -> list[int] | None:
    """A histogram of the exponents of all parameters. The first bin has the top rung."""
    weights = log_tensors(model)
    if not weights:
        return None
    rungs = 2 ** weights[0].bits
    bins = min(rungs, HISTOGRAM_BINS)
    counts = torch.zeros(bins, dtype=torch.int64)
    for p in weights:
        counts += torch.bincount(p.exponent.flatten().cpu().long() * bins // rungs, minlength=bins)
    return counts.tolist()


def ladder(model: nn.Module) -> dict[str, Any] | None:
    """The number format after training: spacing, range, and the share of weights on the first and last rung."""
    weights = log_tensors(model)
    if not weights:
        return None
    bits = weights[0].bits
    spacings = sorted({float(p.base_precision) for p in weights})
    codes = torch.cat([p.exponent.flatten().cpu() for p in weights])
    return {
        "bits": bits,
        "rungs": 2**bits,
        "base_precision": spacings,
        "range_nats": [(2**bits - 1) * s for s in spacings],
        "tensors": len(weights),
        "share_at_top": float((codes == 0).double().mean()),
        "share_at_bottom": float((codes == 2**bits - 1).double().mean()),
    }


def train(run: Run, data: Dataset, progress: Progress) -> dict[str, Any]:
    """Train one run and return its record for ``results.json``; ``progress`` gets the steps done and the loss.

    A run whose loss is not finite ends at once and is recorded as diverged. This is a result, not a failure.
    """
    device = torch.device("cuda" if run.base == "cifar10" and torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.deterministic = True
    started, started_cpu = time.perf_counter(), time.process_time()
    model = build(run, data).to(device)
    optimizer = make_optimizer(run, model)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule(run.settings["task"]["schedule"], step, run.steps)
    )
    before = histogram(model)
    macs = flops(model, next(batches(run, data, device))[0][:1]).total
    stride = math.ceil(run.steps / CURVE_POINTS)
    points: list[int] = []
    losses: list[float] = []
    recent: list[float] = []
    status = "ok"
    model.train()
    for step, (x, y) in zip(range(run.steps), batches(run, data, device), strict=False):
        loss = loss_of(model, x, y)
        value = float(loss.detach())
        if not math.isfinite(value):
            status = "diverged"
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        recent.append(value)
        if len(recent) == stride or step + 1 == run.steps:
            points.append(step + 1)
            losses.append(sum(recent) / len(recent))
            recent.clear()
        progress(step + 1, value)
    metric = evaluate(run, model, data, device) if status == "ok" else math.nan
    if not math.isfinite(metric):
        status = "diverged"
    after = histogram(model)
    return {
        "status": status,
        "metric": metric if status == "ok" else None,
        "steps_done": points[-1] if points else 0,
        "curve": {"step": points, "loss": losses},
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - started_cpu,
        "device": str(device),
        "macs": macs,
        "bytes": measure(model, optimizer),
        "exponents": None if before is None else {"before": before, "after": after},
        "ladder": ladder(model),
    }


def measure(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """The bytes held. Gradients are freed first, because they exist only between a backward pass and a step."""
    with contextlib.suppress(AttributeError):
        optimizer.zero_grad(set_to_none=True)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": held_bytes(model),
        "training": held_bytes(model, optimizer),
    }
