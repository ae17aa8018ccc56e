"""The bytes and the use of the ladder of every parameter of a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ..convert.quantizers import quantizers_of
from ..tensor.log_tensor import LogTensor
from ..text import aligned
from .memory import held_bytes


@dataclass
class Layer:
    """One parameter. What concerns the ladder is None for float parameters, and the counts are None without Madam."""

    name: str
    shape: tuple[int, ...]
    bits: int | None
    """Bits of the exponent; None for a float parameter."""
    scale: float | None
    """sigma*, the top rung."""
    lowest: float | None
    """The magnitude of the last rung."""
    weight_bytes: int
    state_bytes: int
    float_bytes: int
    """Bytes of the same parameter in FP32."""
    first_rung: float | None = None
    """% of weights on rung 0: many mean that sigma* is too small."""
    last_rung: float | None = None
    """% of weights on the last rung: many mean that the range is too short."""
    crossings: int | None = None
    """Sign crossings so far."""
    stalled: float | None = None
    """% of moves so far that were rounded to nothing."""
    activation: str | None = None
    """The format of its layer's activations; None for full precision."""
    gradient: str | None = None
    """The format of the gradients of its layer's outputs; None for full precision."""


@dataclass
class Summary:
    """The layers and their totals; `print` it, or read `layers`."""

    layers: list[Layer] = field(default_factory=list)
    has_state: bool = False

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer state."""
        return sum(layer.state_bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the parameters in FP32."""
        return sum(layer.float_bytes for layer in self.layers)

    def __str__(self) -> str:
        header = ["layer", "shape", "bits", "sigma*", "lowest", "bytes", "state", "FP32", "% first", "% last"]
        header += ["crossings", "% stalled"] if self.has_state else []
        rows = [_row(layer)[: len(header)] for layer in self.layers]
        if any(layer.activation or layer.gradient for layer in self.layers):
            header += ["activation", "gradient"]
            for layer, row in zip(self.layers, rows, strict=True):
                row += [layer.activation or "float", layer.gradient or "float"]
        totals = ["total", "", "", "", "", f"{self.weight_bytes:,}", f"{self.state_bytes:,}", f"{self.float_bytes:,}"]
        rows.append(totals + [""] * (len(header) - len(totals)))
        lines = aligned([header, *rows], left=2)
        count = self.float_bytes // 4
        if count:
            lines.append(
                f"{count:,} parameters: {self.weight_bytes / count:.2f} bytes each"
                + (f", {(self.weight_bytes + self.state_bytes) / count:.2f} with optimizer state" * self.has_state)
                + "; FP32 takes 4.00, 12.00 with Adam's state"
            )
        return "\n".join(lines)


def summary(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Summary:
    """Bits, sigma*, range, real bytes and ladder health of every parameter of a model, and its layer's quantizers.

    Args:
        model: any module, wrapped or not; tied parameters count once.
        optimizer: the Madam that trains it, or any optimizer; adds the bytes of its state and, for Madam, the sign
            crossings and the moves that were rounded to nothing.

    >>> from lognet import wrap
    >>> print(summary(wrap(nn.Linear(8, 4, bias=False), bits=8)).weight_bytes)
    40
    """
    result = Summary(has_state=optimizer is not None)
    quantizers = quantizers_of(model)
    for name, p in model.named_parameters():
        state = optimizer.state.get(p, {}) if optimizer is not None else {}
        layer = Layer(name, tuple(p.shape), None, None, None, held_bytes(p), held_bytes(state), 4 * p.numel())
        if isinstance(p, LogTensor):
            layer.bits, layer.scale = p.bits, float(p.scale)
            layer.lowest = layer.scale / p.format.range
            if p.numel():
                exponent = p.exponent
                layer.first_rung = 100 * float((exponent == 0).float().mean())
                layer.last_rung = 100 * float((exponent == p.format.last_rung).float().mean())
            if "counts" in state:
                tried, stalled, layer.crossings = state["counts"].tolist()
                layer.stalled = 100 * stalled / max(tried, 1)
        own = next((quantizers[above] for above in _above(name) if above in quantizers), None)
        if own is not None:
            layer.activation = None if own.activation is None else str(own.activation)
            layer.gradient = None if own.gradient is None else str(own.gradient)
        result.layers.append(layer)
    return result


def _above(name: str) -> list[str]:
    """The names of the modules above a parameter, the nearest first; the model's own is the empty one."""
    path = name.split(".")[:-1]
    return [".".join(path[:n]) for n in range(len(path), -1, -1)]


def _row(layer: Layer) -> list[str]:
    def number(value: float | None, spec: str) -> str:
        return "-" if value is None else format(value, spec)

    return [
        layer.name,
        "x".join(map(str, layer.shape)) or "scalar",
        "float" if layer.bits is None else str(layer.bits),
        number(layer.scale, ".3g"),
        number(layer.lowest, ".2g"),
        f"{layer.weight_bytes:,}",
        f"{layer.state_bytes:,}",
        f"{layer.float_bytes:,}",
        number(layer.first_rung, ".1f"),
        number(layer.last_rung, ".1f"),
        number(layer.crossings, ","),
        number(layer.stalled, ".1f"),
    ]
