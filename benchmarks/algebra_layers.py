"""Layers over algebras against real layers of the same real width: forward and backward, interleaved, on the CPU.

    python -m benchmarks.algebra_layers [--out docs/benchmarks-algebra.md] [--rounds 40]

In every round each layer runs once, in an order that changes from round to round. A ratio is the median over rounds of
a layer's time divided by the real layer's in the same round. So a busy machine slows both sides equally.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from lognet.nn import Algebra, AlgebraConv2d, AlgebraLinear

from .speed.measure import compare

THREADS = 2
ALGEBRAS = ("C", "H", "M2R", "M4R", "M2C", "D4")
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


def contenders(
    real: torch.nn.Module, make: Callable[..., torch.nn.Module], columns: Sequence[str]
) -> dict[str, torch.nn.Module]:
    """The real layer, and the layers over all algebras: as they are, expanded, and some with columns outermost."""
    layers = {"R": real}
    for name in ALGEBRAS:
        layers |= {name: make(algebra=name), f"{name}, expanded": Expanded(make(algebra=name))}
    return layers | {f"{name}, columns": make(algebra=name, layout="columns") for name in columns}


def step(layer: torch.nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> None:
    """One forward and backward pass."""
    layer(x).backward(cotangent)
    x.grad = None
    layer.zero_grad()


def table(layers: dict[str, torch.nn.Module], x: torch.Tensor, rounds: int, required: dict[str, float]) -> list[str]:
    cotangent = torch.randn_like(layers["R"](x))
    found = compare({name: partial(step, layer, x, cotangent) for name, layer in layers.items()}, "R", rounds)
    lines = ["| layer | ms | ratio | ratio of the fastest | multiply-adds | required |", "|---|---|---|---|---|---|"]
    lines.append(f"| R | {1e3 * found['C'].reference_seconds:.2f} | 1.00 | 1.00 | 1.00 | |")
    for name, ratio in found.items():
        algebra = Algebra(name.split(",")[0])
        work = algebra.multiplies / algebra.size**2
        bound = f"<= {required[name]:.2f}" if name in required else ""
        cells = f"{1e3 * ratio.seconds:.2f} | {ratio.value:.2f} | {ratio.fastest:.2f} | {work:.2f}"
        lines.append(f"| {name} | {cells} | {bound} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)

    width, batch = 1024, 256
    linear_layers = partial(AlgebraLinear, width, width)
    linear = contenders(torch.nn.Linear(width, width), linear_layers, ("M2R", "M4R", "D4"))
    channels = 64
    conv_layers = partial(AlgebraConv2d, channels, channels, 3, padding=1)
    conv = contenders(torch.nn.Conv2d(channels, channels, 3, padding=1), conv_layers, ("M2R",))

    load = os.getloadavg()[0]
    first = table(linear, torch.randn(batch, width, requires_grad=True), arguments.rounds, REQUIRED["linear"])
    images = torch.randn(16, channels, 32, 32, requires_grad=True)
    second = table(conv, images, max(10, arguments.rounds // 2), REQUIRED["conv"])
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
        *first,
        "",
        f"## Conv2d, 3 x 3, batch {len(images)}, {channels} real channels, 32 x 32",
        "",
        *second,
        "",
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
