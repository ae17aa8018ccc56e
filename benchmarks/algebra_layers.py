"""Layers over algebras against real layers of the same real width: forward and backward, interleaved, on the CPU.

    python benchmarks/algebra_layers.py [--out docs/benchmarks-algebra.md] [--rounds 40]

In every round each layer runs once, in an order that changes from round to round. A ratio is the median over rounds of
a layer's time divided by the real layer's in the same round. So a busy machine slows both sides equally.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import statistics
import textwrap
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from lognet.nn import Algebra, AlgebraConv2d, AlgebraLinear

THREADS = 2
REQUIRED = {  # at most so many times the real layer
    "linear": {"C": 1.2, "H": 1.2, "M2R": 0.65, "M4R": 0.40, "D4": 0.45},
    "conv": {"M2R": 0.70},
}


class Expanded(torch.nn.Module):
    """A layer by its dense expansion: it builds the real weight at each call and multiplies with torch."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.layer.dense_weight(), self.layer.bias
        if isinstance(self.layer, AlgebraConv2d):
            return F.conv2d(x, weight, bias, padding=self.layer.padding)
        return F.linear(x, weight, bias)


def step(layer: torch.nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    layer(x).backward(cotangent)
    elapsed = time.perf_counter() - start
    x.grad = None
    layer.zero_grad()
    return elapsed


def compare(layers: dict[str, torch.nn.Module], x: torch.Tensor, rounds: int) -> list[tuple[str, float, float, float]]:
    """(name, median milliseconds, median ratio to the real layer, ratio of the fastest rounds) of each layer."""
    cotangent = torch.randn_like(layers["R"](x))
    times: dict[str, list[float]] = {name: [] for name in layers}
    order = list(layers)
    for i in range(rounds + 3):
        random.Random(i).shuffle(order)
        for name in order:
            elapsed = step(layers[name], x, cotangent)
            if i >= 3:
                times[name].append(elapsed)
    rows = []
    for name in layers:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["R"], strict=True))
        rows.append((name, 1e3 * statistics.median(times[name]), ratio, min(times[name]) / min(times["R"])))
    return rows


def table(rows: list[tuple[str, float, float, float]], required: dict[str, float]) -> list[str]:
    lines = ["| layer | ms | ratio | ratio of the fastest | multiply-adds | required |", "|---|---|---|---|---|---|"]
    for name, milliseconds, ratio, fastest in rows:
        algebra = Algebra(name.split(",")[0])
        work = algebra.multiplies / algebra.size**2
        bound = f"<= {required[name]:.2f}" if name in required else ""
        lines.append(f"| {name} | {milliseconds:.2f} | {ratio:.2f} | {fastest:.2f} | {work:.2f} | {bound} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)

    width, batch = 1024, 256
    linear: dict[str, torch.nn.Module] = {"R": torch.nn.Linear(width, width)}
    for name in ("C", "H", "M2R", "M4R", "M2C", "D4"):
        linear[name] = AlgebraLinear(width, width, algebra=name)
        linear[f"{name}, expanded"] = Expanded(AlgebraLinear(width, width, algebra=name))
    for name in ("M2R", "M4R", "D4"):
        linear[f"{name}, columns"] = AlgebraLinear(width, width, algebra=name, layout="columns")
    channels = 64
    conv: dict[str, torch.nn.Module] = {"R": torch.nn.Conv2d(channels, channels, 3, padding=1)}
    for name in ("C", "H", "M2R", "M4R", "M2C", "D4"):
        conv[name] = AlgebraConv2d(channels, channels, 3, padding=1, algebra=name)
        conv[f"{name}, expanded"] = Expanded(AlgebraConv2d(channels, channels, 3, padding=1, algebra=name))
    conv["M2R, columns"] = AlgebraConv2d(channels, channels, 3, padding=1, algebra="M2R", layout="columns")

    load = os.getloadavg()[0]
    first = compare(linear, torch.randn(batch, width, requires_grad=True), arguments.rounds)
    images = torch.randn(16, channels, 32, 32, requires_grad=True)
    second = compare(conv, images, max(10, arguments.rounds // 2))
    lines = [
        "# Layers over algebras against real layers",
        "",
        textwrap.fill(
            f"`benchmarks/algebra_layers.py` measured these layers on {datetime.date.today()}: forward and backward pass,"
            f" float32, {THREADS} threads on {os.cpu_count()} cores ({platform.machine()}), PyTorch"
            f" {torch.__version__.split('+')[0]}, load average {load:.1f} at the start. All layers of a table ran"
            f" interleaved, in {arguments.rounds} rounds. A ratio is the median over rounds of the layer's time divided by"
            " the real layer's time in the same round. Multiply-adds are relative to the real layer's too.",
            120,
        ),
        "",
        '`columns` is `layout="columns"`, without the permutations on either side. `expanded` builds the real weight at',
        "each call.",
        "",
        f"## Linear, batch {batch}, width {width} real scalars",
        "",
        *table(first, REQUIRED["linear"]),
        "",
        f"## Conv2d, 3 x 3, batch {len(images)}, {channels} real channels, 32 x 32",
        "",
        *table(second, REQUIRED["conv"]),
        "",
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
