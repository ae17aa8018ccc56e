"""Conversion: the linear, convolution and recurrent layers of an existing model to layers over an algebra."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..log_tensor import LogTensor
from . import conv, recurrent
from .algebra import Algebra
from .linear import AlgebraLinear
from .parameters import check_bits, make_parameter, write_

Pattern = str | type[nn.Module]
INITS = ("project", "glorot")

_CONVS: dict[type[nn.Module], Any] = {
    nn.Conv1d: conv.AlgebraConv1d,
    nn.Conv2d: conv.AlgebraConv2d,
    nn.Conv3d: conv.AlgebraConv3d,
    nn.ConvTranspose1d: conv.AlgebraConvTranspose1d,
    nn.ConvTranspose2d: conv.AlgebraConvTranspose2d,
    nn.ConvTranspose3d: conv.AlgebraConvTranspose3d,
}
_LAYERS: dict[type[nn.Module], Any] = {nn.GRU: recurrent.AlgebraGRU, nn.LSTM: recurrent.AlgebraLSTM}
_CELLS: dict[type[nn.Module], Any] = {nn.GRUCell: recurrent.AlgebraGRUCell, nn.LSTMCell: recurrent.AlgebraLSTMCell}
_KNOWN: tuple[type[nn.Module], ...] = (nn.Linear, *_CONVS, *_LAYERS, *_CELLS)
_READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass
class Algebraized:
    """What `algebraize` did.

    Attributes:
        model: the converted model.
        replaced: name of each replaced module, and the layer that stands there now.
        kept: name of each linear, convolution or recurrent module left as it was, and why.
        parameters: of the model, before and after.
    """

    model: nn.Module
    replaced: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    parameters: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        lines = [f"replaced {name}: {what}" for name, what in self.replaced.items()]
        lines += [f"kept {name}: {why}" for name, why in self.kept.items()]
        return "\n".join([*lines, f"{self.parameters[0]:,} parameters before, {self.parameters[1]:,} after"])


def algebraize(
    model: nn.Module,
    algebra: str | Algebra = "M2R",
    skip: Pattern | Iterable[Pattern] = (),
    *,
    bits: int | None = None,
    init: str = "project",
) -> Algebraized:
    """Replace Linear, Conv, GRU and LSTM layers and cells by layers over an algebra of the same real width, in place.

    Real inputs and outputs of the model are left to the caller: a first layer of 3 channels stays real, since 3 is no
    multiple of A, and a last layer that should give plain logits is best skipped.

    Args:
        model: any module with float parameters.
        algebra: name or `Algebra`.
        skip: fnmatch patterns of module names, or module classes, to leave alone.
        bits: None for float parameters, or B: LogTensors in the layers that are replaced.
        init: "project": the weight over the algebra whose dense expansion is nearest to the present weight (biases are
            taken over); "glorot": a fresh one.

    Returns:
        An `Algebraized`: the model and what was replaced, what was not, and why.

    Raises:
        TypeError: a pattern that is neither a string nor a module class.
        ValueError: a pattern that matches no module, an unknown algebra or init, LogTensor parameters (unwrap first).

    >>> report = algebraize(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8)), "H")
    >>> print(report)
    replaced 1: AlgebraLinear(8, 8, algebra=H, bias=True)
    kept 0: in_features=6 must be a positive multiple of 4, the tuple size of H; nearest is 8
    128 parameters before, 80 after
    """
    algebra = Algebra.of(algebra)
    check_bits(bits)
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
    patterns = (skip,) if isinstance(skip, (str, type)) else tuple(skip)
    for pattern in patterns:
        if not isinstance(pattern, (str, type)):
            raise TypeError(f"skip takes fnmatch patterns and module classes, got {pattern!r}")
        if not any(_matches(name, module, pattern) for name, module in model.named_modules()):
            raise ValueError(f"skip: {pattern!r} matches no module of the model")
    if any(isinstance(p, LogTensor) for p in model.parameters()):
        raise ValueError("the model has LogTensor parameters; convert it before lognet.wrap, or after lognet.unwrap")
    report, before = Algebraized(model), _size(model)
    users = _users(model)
    made: dict[int, nn.Module] = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, _KNOWN):
            continue
        why = _obstacle(model, name, module, patterns, users)
        if why is None:
            try:
                made[id(module)] = _converted(module, algebra, bits, init)
                report.replaced[name or "(the model)"] = repr(made[id(module)])
            except ValueError as error:
                why = str(error)
        if why is not None:
            report.kept[name or "(the model)"] = why
    report.model = made.get(id(model), model)
    for owner in list(model.modules()):
        for child, module in list(owner._modules.items()):
            if id(module) in made:
                setattr(owner, child, made[id(module)])
    report.parameters = (before, _size(report.model))
    return report


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _users(model: nn.Module) -> dict[int, list[nn.Module]]:
    """The modules that hold each parameter."""
    users: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            users.setdefault(id(p), []).append(module)
    return users


def _obstacle(
    model: nn.Module, name: str, module: nn.Module, patterns: Iterable[Pattern], users: dict[int, list[nn.Module]]
) -> str | None:
    """Why a module stays as it is, if it does for a reason other than its sizes."""
    if any(_matches(name, module, pattern) for pattern in patterns):
        return "skipped"
    if type(module) not in _KNOWN:
        return f"{type(module).__name__} is not exactly a layer of torch.nn"
    parents = [model.get_submodule(".".join(name.split(".")[:n])) for n in range(len(name.split(".")))] if name else []
    for parent in parents:
        if isinstance(parent, _READERS):
            return f"{type(parent).__name__} reads the weights of its layers itself"
    if any(len(users[id(p)]) > 1 for p in module.parameters(recurse=False)):
        return "it shares a parameter with another module"
    if getattr(module, "proj_size", 0):
        return f"proj_size={module.proj_size} has no counterpart"
    return None


def _converted(module: Any, algebra: Algebra, bits: int | None, init: str) -> nn.Module:
    first = next(module.parameters())
    options: dict[str, Any] = {"algebra": algebra, "bits": bits, "device": first.device, "dtype": first.dtype}
    kind = type(module)
    new: Any
    if kind is nn.Linear:
        new = AlgebraLinear(module.in_features, module.out_features, module.bias is not None, **options)
    elif kind in _CONVS:
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
        geometry = {name: getattr(module, name) for name in names}
        if module.transposed:
            geometry["output_padding"] = module.output_padding
        new = _CONVS[kind](**geometry, bias=module.bias is not None, **options)
    elif kind in _LAYERS:
        arguments = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        new = _LAYERS[kind](**{name: getattr(module, name) for name in arguments}, **options)
    else:
        new = _CELLS[kind](module.input_size, module.hidden_size, module.bias, **options)
    if init == "project":
        transposed = getattr(module, "transposed", False)
        for name, p in module.named_parameters():
            values = project(p.detach(), algebra, transposed) if name.startswith("weight") else p.detach()
            if bits is None:
                write_(new.get_parameter(name), values)
            else:
                setattr(new, name, make_parameter(values.contiguous(), bits))
    for name, p in module.named_parameters():
        new.get_parameter(name).requires_grad_(p.requires_grad)
    return new.train(module.training)


def project(weight: Tensor, algebra: str | Algebra, transposed: bool = False) -> Tensor:
    """The weight of tuples whose dense expansion is nearest to a real matrix or kernel, in the Frobenius norm.

    Args:
        weight: (out, in, *kernel), both multiples of A.
        algebra: name or Algebra.
        transposed: the kernel is that of a transposed convolution, (in, out / groups, *kernel).

    Returns:
        (out / A, in / A, *kernel, A), or inputs first if `transposed`.

    >>> project(torch.tensor([[3.0, -4.0], [5.0, 3.0]]), "C").tolist()
    [[[3.0, 4.5]]]
    """
    algebra = Algebra.of(algebra)
    structure = algebra.structure(weight.dtype, weight.device)
    size = algebra.size
    split = weight.reshape(weight.shape[0] // size, size, weight.shape[1] // size, size, *weight.shape[2:])
    places = "mp" if transposed else "pm"
    sums = torch.einsum(f"o{places[0]}i{places[1]}...,plm->oi...l", split, structure)
    return sums / structure.square().sum((0, 2))


def _matches(name: str, module: nn.Module, pattern: Pattern) -> bool:
    if isinstance(pattern, type):
        return isinstance(module, pattern)
    parts = name.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))
