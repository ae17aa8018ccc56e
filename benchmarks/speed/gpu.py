"""On a CUDA device: Madam's step, eager and compiled, against torch's fused Adam, and reading weights in compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from lognet import LogTensor
from lognet.optim import Madam

from .measure import Row, Size, compare, timed
from .optimizer import ADAM, gradients, parameters, step_of

THEME = "On a GPU"
TENSORS = 4


def waited_for(call: Callable[[], object]) -> Callable[[], object]:
    """The call, with a wait for the device at its end."""

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def on_device(params: list[nn.Parameter]) -> list[nn.Parameter]:
    moved = []
    for p in params:
        there = nn.Parameter(p.detach().to("cuda"))
        there.grad = None if p.grad is None else p.grad.to("cuda")
        moved.append(there)
    return moved


def steps(size: Size) -> Iterator[Row]:
    """A step on six times as many weights as on a CPU, in a few tensors."""
    sizes = [6 * size.weights // TENSORS] * TENSORS
    grads = gradients(sizes)
    cases: list[tuple[str, int | None, dict[str, Any]]] = [
        ("8 bits, no momentum", 8, {"momentum": 0.0}),
        ("8 bits, the default", 8, {}),
        ("8 bits, the default with state_bits=8", 8, {"state_bits": 8}),
        ("12 bits, the default", 12, {}),
        ("float32 weights, the default", None, {}),
    ]
    adam = step_of(lambda ps: torch.optim.Adam(ps, fused=True), on_device(parameters(sizes, None, grads)))
    contenders = {ADAM: waited_for(adam)}
    for name, bits, options in cases:
        optimizer = Madam(on_device(parameters(sizes, bits, grads)), **options)
        compiled = torch.compile(optimizer.step)
        compiled()  # compiled here, before the others
        contenders[f"compiled, {name}"] = waited_for(compiled)
    eager = step_of(Madam, on_device(parameters(sizes, 8, grads)))
    contenders["eager, 8 bits, the default"] = waited_for(eager)
    found = compare(contenders, ADAM, size.rounds)
    for name in list(contenders)[1:]:
        yield timed(THEME, f"a step of Madam, {name}", f"{ADAM}, {sum(sizes):,} weights", found[name])


@torch.no_grad()
def reading(size: Size) -> Iterator[Row]:
    """Decoding to floats, and a matrix times a vector, in compiled graphs."""
    x = 0.1 * torch.randn(2 * size.width, 2 * size.width)
    there, vector = x.to("cuda"), torch.randn(2 * size.width, device="cuda")
    decoding, products = {"copy": waited_for(there.clone)}, {"torch.mv": waited_for(lambda: torch.mv(there, vector))}
    decode = torch.compile(lambda w: w.dequantize(), fullgraph=True)
    product = torch.compile(torch.mv, fullgraph=True)
    for bits in (8, 12):
        w = LogTensor.from_float(x, bits).to("cuda")
        decoding[f"{bits} bits"] = waited_for(lambda w=w: decode(w))
        products[f"{bits} bits"] = waited_for(lambda w=w: product(w, vector))
    shape = " x ".join(map(str, x.shape))
    for contenders, against, what in (
        (decoding, "copy", "decode to float32"),
        (products, "torch.mv", "matrix times vector"),
    ):
        found = compare(contenders, against, size.rounds)
        for name in list(contenders)[1:]:
            yield timed(THEME, f"{what}, {name}, compiled", f"{against} of float32, {shape}", found[name])


def rows(size: Size) -> Iterator[Row]:
    if not torch.cuda.is_available():
        yield Row(THEME, "all of it", "-", None, note="no CUDA device here")
        return
    for part in (steps, reading):
        yield from part(size)
