"""The engines that make Madam's steps, and the choice among them.

An engine has two methods: `check` says which gradients are sound, and `step` makes the steps of those. `TorchEngine` is
the reference, for every parameter; the others give the same bits. To add one: a file here with these two methods and
`accepts`, and its place in `Engines.assign`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...quant.kernels.native import ready
from ..parameter_step import ParameterStep
from .native import NativeEngine
from .torch_engine import TorchEngine


class Engine(Protocol):
    """What makes steps. `check` changes no weight, and `step` gets the steps whose gradients are sound."""

    def check(self, steps: Sequence[ParameterStep]) -> list[bool]: ...
    def step(self, steps: Sequence[ParameterStep]) -> None: ...


class Engines:
    """The engines of one optimizer."""

    def __init__(self) -> None:
        self._native, self._torch = NativeEngine(), TorchEngine()

    def assign(
        self, steps: Sequence[ParameterStep], groups: Sequence[dict[str, Any]]
    ) -> list[tuple[Engine, list[ParameterStep]]]:
        """Give each step, of a parameter in one of these groups, to the first engine that accepts it."""
        by_native: list[ParameterStep] = []
        by_torch: list[ParameterStep] = []
        if native_ready := ready():
            self._native.read_groups(groups)
        for step in steps:
            (by_native if native_ready and self._native.accepts(step) else by_torch).append(step)
        return [(engine, own) for engine, own in ((self._native, by_native), (self._torch, by_torch)) if own]
