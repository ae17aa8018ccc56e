"""What became of the layers of a model: the report of `compress` and `algebraize`."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.nn.parameter import is_lazy

from ..text import aligned


@dataclass
class ReplacedLayer:
    """A replaced layer, or several that share a weight.

    Attributes:
        names: qualified names; that of the model itself is empty.
        became: the class of the replacement.
        before, after: parameters.
        error: ||W - W'|| / ||W|| (Frobenius) over the layer's matrices; None if it was not measured.

    No example: a `ConversionReport` shows it.
    """

    names: tuple[str, ...]
    became: str
    before: int
    after: int
    error: float | None = None


@dataclass
class ConversionReport:
    """What became of the layers of a model; `print` it, or read its attributes.

    Attributes:
        before, after: parameters of the whole model, without those of lazy modules.
        layers: each a `ReplacedLayer`.
        kept: name of each other layer that has matrices, and why it stays.

    >>> from lognet import algebraize
    >>> model, report = algebraize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)), "H")
    >>> print(report)
    layer      became         before  after
    0          AlgebraLinear      72     24
    the model                     99     51
    kept 1: out_features=3 must be a positive multiple of 4, the tuple size of H; nearest is 4
    """

    before: int
    after: int
    layers: list[ReplacedLayer] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        measured = any(layer.error is not None for layer in self.layers)
        rows = [["layer", "became", "before", "after", *["relative error"] * measured]]
        for layer in self.layers:
            error = "" if layer.error is None else f"{layer.error:.4f}"
            names = " = ".join(map(shown_name, layer.names))
            rows.append([names, layer.became, f"{layer.before:,}", f"{layer.after:,}", *[error] * measured])
        rows.append(["the model", "", f"{self.before:,}", f"{self.after:,}", *[""] * measured])
        kept = [f"kept {shown_name(name)}: {why}" for name, why in self.kept.items()]
        return "\n".join([*aligned(rows, left=2), *kept])


def shown_name(name: str) -> str:
    """The name of a module in a message."""
    return name or "(the model)"


def count_parameters(*modules: nn.Module) -> int:
    """Parameters of modules, shared ones once, those of lazy modules not counted."""
    return sum(p.numel() for p in {p for module in modules for p in module.parameters()} if not is_lazy(p))
