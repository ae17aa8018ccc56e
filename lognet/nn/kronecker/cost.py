"""The cost model of all factored layers: it decides whether to build the matrix or to apply the factors one by one.

A matrix W = sum_r A_r (x) B_r with A (rank, a, b) and B (rank, c, d) is *materialised*, W (ac, bd) once and then one
product with all inputs, or *contracted*, every input with B and then with A or the other way round. Building costs
the same for one input as for a thousand; contracting often costs fewer multiply-accumulates an input, or, in a large
batch, more. `choose` decides by an estimate of the time: multiply-accumulates, elements moved, operations started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IMPLS = ("auto", "materialize", "contract")


class Shape(NamedTuple):
    """A (rank, a, b) and B (rank, c, d): the sum of their Kronecker products is (ac, bd)."""

    rank: int
    a: int
    b: int
    c: int
    d: int

    @property
    def build_macs(self) -> int:
        """Multiply-accumulates of materialising: rank for every entry."""
        return self.rank * self.entries

    @property
    def entries(self) -> int:
        """Entries of the matrix: multiply-accumulates of one input with it, once built."""
        return self.a * self.b * self.c * self.d

    @property
    def b_first(self) -> tuple[int, int]:
        """Multiply-accumulates, and elements in between, of one input contracted with B and then with A."""
        between = self.rank * self.b * self.c
        return between * (self.a + self.d), between

    @property
    def a_first(self) -> tuple[int, int]:
        """The same with A first."""
        between = self.rank * self.a * self.d
        return between * (self.b + self.c), between


@dataclass(frozen=True)
class CostModel:
    """Seconds for each unit of work. Only their ratios decide; `calibrate` measures them where it runs.

    The defaults were measured on one core of an x86-64 server with AVX-512 in float32. A second core divides the
    first three alike, so that the choice hardly changes.

    Args:
        mac: one multiply-accumulate in a large matrix product.
        move: one element of a matrix read by a product with few inputs (memory-bound).
        write: one element of an intermediate result or of a built matrix, written and put in order.
        call: starting one operation.

    >>> phm, model = Shape(16, 16, 16, 64, 64), CostModel()  # 1024 x 1024 at n = 16
    >>> [model.contract(phm, inputs) < model.materialize(phm, inputs) for inputs in (1, 16, 256)]
    [True, True, False]
    """

    mac: float = 1 / 44e9
    move: float = 0.25e-9
    write: float = 0.5e-9
    call: float = 15e-6

    def materialize(self, shape: Shape, inputs: int) -> float:
        """Seconds to build the matrix and multiply `inputs` vectors by it."""
        build = shape.build_macs * self.mac + shape.entries * self.write
        multiply = max(inputs * shape.entries * self.mac, shape.entries * self.move)
        return build + multiply + 4 * self.call

    def contract(self, shape: Shape, inputs: int) -> float:
        """Seconds to contract `inputs` vectors with the factors, in the better order."""
        factors = shape.rank * (shape.a * shape.b + shape.c * shape.d) * self.move
        macs, between = min(shape.b_first, shape.a_first)
        return inputs * (macs * self.mac + between * self.write) + factors + 4 * self.call


_current = CostModel()


def cost_model() -> CostModel:
    """The model by which ``impl="auto"`` decides.

    >>> cost_model() == CostModel()
    True
    """
    return _current


def set_cost_model(model: CostModel) -> CostModel:
    """Make `model` the one by which ``impl="auto"`` decides; returns the previous one.

    Args:
        model: by hand, or from `calibrate`.

    >>> before = set_cost_model(CostModel(call=1e-6))
    >>> cost_model().call, set_cost_model(before).call
    (1e-06, 1e-06)
    """
    global _current
    before, _current = _current, model
    return before


def check_impl(impl: str) -> str:
    """Return `impl` if it is one of `IMPLS`, else raise ValueError."""
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(map(repr, IMPLS))}, got {impl!r}")
    return impl


def choose(impl: str, shape: Shape, inputs: int) -> str:
    """ "materialize" or "contract": `impl` itself, or for "auto" the one that the cost model finds cheaper.

    Args:
        impl: "auto", "materialize" or "contract".
        shape: of the factors.
        inputs: number of vectors to be multiplied.

    Raises:
        ValueError: another `impl`.

    >>> phm = Shape(16, 16, 16, 64, 64)  # 1024 x 1024 at n = 16: contraction below about max(k, d) / n = 64 inputs
    >>> choose("auto", phm, 16), choose("auto", phm, 256), choose("contract", phm, 256)
    ('contract', 'materialize', 'contract')
    """
    if check_impl(impl) != "auto":
        return impl
    model = cost_model()
    return "contract" if model.contract(shape, inputs) < model.materialize(shape, inputs) else "materialize"


@torch.no_grad()
def calibrate(device: torch.device | str = "cpu", size: int = 1024, repeats: int = 9) -> CostModel:
    """Measure a `CostModel` on this machine, in some tenths of a second; `set_cost_model` puts it to use.

    Args:
        device: where the layers run.
        size: side of the square matrices multiplied.
        repeats: runs of each measurement, of which the shortest counts.

    >>> calibrate(size=64, repeats=2).mac > 0
    True
    """
    weight, inputs = torch.ones(size, size, device=device), torch.ones(size, size, device=device)
    one, tiny = torch.ones(1, size, device=device), torch.ones(1, 1, device=device)
    rows = weight.view(size, 1, size).expand(size, 2, size).reshape(2 * size, size)

    def seconds(run: Callable[[], Tensor]) -> float:
        found = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            if weight.is_cuda:
                torch.cuda.synchronize(weight.device)
            found.append(time.perf_counter() - start)
        return min(found)

    call = seconds(lambda: F.linear(tiny, tiny))
    return CostModel(
        mac=max(seconds(lambda: F.linear(inputs, weight)) - call, 1e-9) / size**3,
        move=max(seconds(lambda: F.linear(one, weight)) - call, 1e-9) / size**2,
        write=max(seconds(lambda: rows.view(2, size, size).transpose(0, 1).reshape(-1)) - call, 1e-9) / rows.numel(),
        call=call,
    )
