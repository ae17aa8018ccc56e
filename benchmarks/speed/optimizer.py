"""One step of Madam against one of torch's fused Adam, and against 8-bit Adams of other libraries."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lognet import LogTensor
from lognet.optim import Madam

from .measure import Row, Size, by_turns, compare, faster, ratio, timed

ADAM = "torch.optim.Adam(fused=True)"
THEME = "One step of the optimizer"


def parameters(sizes: list[int], bits: int | None, grads: list[Tensor]) -> list[nn.Parameter]:
    """Weights of size 0.1 with the given gradients, in float (bits None) or on ladders."""
    made = []
    for size, grad in zip(sizes, grads, strict=True):
        values = 0.1 * torch.randn(size)
        p = nn.Parameter(values if bits is None else LogTensor.from_float(values, bits, scale=1.2))
        p.grad = grad
        made.append(p)
    return made


def step_of(make: Callable[[list[nn.Parameter]], Any], params: list[nn.Parameter]) -> Callable[[], object]:
    optimizer = make(params)
    return lambda: optimizer.step()


def gradients(sizes: list[int]) -> list[Tensor]:
    return [1e-2 * torch.randn(size) for size in sizes]


def large(size: Size) -> Iterator[Row]:
    """Ten million weights in tensors of a million, every contender with the same gradients."""
    sizes = [size.tensor] * (size.weights // size.tensor)
    grads = gradients(sizes)
    cases: list[tuple[str, int | None, dict[str, Any], float | None]] = [
        ("8 bits, no momentum", 8, {"momentum": 0.0}, 0.6),
        ("8 bits, no momentum, state_bits=8", 8, {"momentum": 0.0, "state_bits": 8}, 0.5),
        ("8 bits, no momentum, state_bits=4", 8, {"momentum": 0.0, "state_bits": 4}, None),
        ("10 bits, no momentum", 10, {"momentum": 0.0}, 0.75),
        ("12 bits, no momentum", 12, {"momentum": 0.0}, 0.75),
        ("float32 weights, no momentum", None, {"momentum": 0.0}, 0.85),
        ("8 bits, the default", 8, {}, None),
        ("8 bits, the default with state_bits=8", 8, {"state_bits": 8}, None),
        ("8 bits, the default with state_bits=4", 8, {"state_bits": 4}, None),
        ("float32 weights, the default", None, {}, None),
    ]
    contenders = {ADAM: step_of(lambda ps: torch.optim.Adam(ps, fused=True), parameters(sizes, None, grads))}
    for name, bits, options, _ in cases:
        contenders[name] = step_of(lambda ps, o=options: Madam(ps, **o), parameters(sizes, bits, grads))
    found = compare(contenders, ADAM, size.rounds)
    for name, _, _, bound in cases:
        yield timed(THEME, f"Madam, {name}", f"{ADAM}, {sum(sizes):,} weights", found[name], bound)


def many(size: Size) -> Iterator[Row]:
    """Many small tensors, where the fixed cost of a step dominates."""
    sizes = [size.many] * size.many
    grads = gradients(sizes)
    contenders = {
        ADAM: step_of(lambda ps: torch.optim.Adam(ps, fused=True), parameters(sizes, None, grads)),
        "8": step_of(lambda ps: Madam(ps, momentum=0.0), parameters(sizes, 8, grads)),
        "8, default": step_of(Madam, parameters(sizes, 8, grads)),
    }
    found = compare(contenders, ADAM, max(1, size.rounds // 2))
    against = f"{ADAM}, {size.many:,} tensors of {size.many:,}"
    note = f"{1e6 * found['8'].seconds / size.many:.1f} microseconds a tensor"
    yield timed(THEME, "Madam, 8 bits, no momentum", against, found["8"], 1.5, note)
    yield timed(THEME, "Madam, 8 bits, the default", against, found["8, default"])


def growth(size: Size) -> Iterator[Row]:
    """The time for one weight in a large model divided by that in a small one, and the time of a step of one weight."""
    small, large = [size.tensor], [size.tensor] * (size.grown // size.tensor)
    contenders = {}
    for name, sizes in (("small", small), ("large", large)):
        contenders[name] = step_of(lambda ps: Madam(ps, state_bits=8), parameters(sizes, 8, gradients(sizes)))
    seconds = by_turns(contenders, max(1, size.rounds // 4))
    per_weight = {name: [s / sum(sizes) for s in seconds[name]] for name, sizes in (("small", small), ("large", large))}
    found = ratio(per_weight["large"], per_weight["small"])
    note = f"{1e9 * found.seconds:.2f} ns a weight against {1e9 * found.reference_seconds:.2f} ns; 8 bits, state_bits=8"
    spread = (found.low, found.high)
    yield Row(
        THEME, f"a weight among {sum(large):,}", f"one among {sum(small):,}", found.value, 2.0, spread=spread, note=note
    )
    one = {"Adam": step_of(lambda ps: torch.optim.Adam(ps, fused=True), parameters([1], None, gradients([1])))}
    one["Madam"] = step_of(Madam, parameters([1], 8, gradients([1])))
    alone = compare(one, "Adam", 10 * size.rounds)["Madam"]
    fixed = f"{1e6 * alone.seconds:.0f} microseconds against {1e6 * alone.reference_seconds:.0f}"
    row = timed(THEME, "a step of one weight, 8 bits, the default: the fixed cost", ADAM, alone)
    yield replace(row, note=fixed)


def peers(size: Size) -> Iterator[Row]:
    """8-bit Adam of torchao and bitsandbytes, if they are installed."""
    sizes = [size.tensor] * (size.weights // size.tensor)
    grads = gradients(sizes)
    for package, path in (("torchao", "torchao.optim"), ("bitsandbytes", "bitsandbytes.optim")):
        name, against = (
            "Madam, 8 bits, no momentum, state_bits=8, times faster",
            f"{package} AdamW8bit, {sum(sizes):,} weights",
        )
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # of packages made for GPUs
            logging.disable(logging.WARNING)
            try:
                make = importlib.import_module(path).AdamW8bit
                theirs = step_of(make, parameters(sizes, None, grads))
                theirs()
            except ImportError:
                yield Row(THEME, name, against, None, 10.0, at_least=True, note="not installed")
                continue
            except Exception as error:  # a version without a CPU back end is a result too
                yield Row(THEME, name, against, None, 10.0, at_least=True, note=f"does not run: {type(error).__name__}")
                continue
            finally:
                logging.disable(logging.NOTSET)
            contenders = {"theirs": theirs}
            for of, options in (("no momentum", {"momentum": 0.0}), ("the default", {})):
                contenders[of] = step_of(
                    lambda ps, o=options: Madam(ps, state_bits=8, **o), parameters(sizes, 8, grads)
                )
            found = compare(contenders, "theirs", max(1, size.rounds // 8))
        yield faster(THEME, name, against, found["no momentum"], 10.0)
        yield faster(THEME, name.replace("no momentum", "the default"), against, found["the default"], None)


def rows(size: Size) -> Iterator[Row]:
    for part in (large, many, growth, peers):
        yield from part(size)
