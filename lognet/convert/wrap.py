"""Whole models: wrap float parameters as LogTensors, change their width, and turn them back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from ..nn.algebra.masks import replace_parameter
from ..optim.madam import is_moved_by_madam
from ..quant import Quantizer
from ..quant.log_format import P_SCALE, LogFormat, check_positive
from ..quant.random_bits import mix64
from ..tensor.log_tensor import LogTensor
from ..tensor.parameter import (
    INITS,
    HeldParameter,
    check_sign_seed,
    few_bit_parameter,
    held_parameters,
    parameter_like,
    sign_keys,
)
from .patterns import Choice, Matcher, Pattern, Patterns, check_module
from .quantizers import attach, check_quantizers, detach, find_layers, quantizers_of


def wrap(
    model: nn.Module,
    bits: int = 8,
    *,
    base_precision: float | None = None,
    p_scale: float = P_SCALE,
    init: str = "quantize",
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    bits_for: Mapping[Pattern, int] | None = None,
    seed: int = 0,
    sign_seed: int | None = None,
    activation: Quantizer | int | str | None = None,
    gradient: Quantizer | int | str | None = None,
) -> nn.Module:
    """Make every floating parameter of a model a LogTensor parameter, in place, and return the model.

    Wrap before making the optimizer. Every layer gets the same width, output layer, biases and norms included, unless
    `bits_for` says otherwise. Tied parameters stay tied, ``requires_grad`` stays, and buffers do not change.

    Args:
        model: any module.
        bits: B, bits of the exponent, 2 to 16.
        base_precision: eta_0 for all parameters, in nats. Default: ``lognet.quant.default_base_precision`` of each
            parameter's width.
        p_scale: sigma* of a parameter is ``max(p_scale * sigma, max |x|)``, with sigma its root mean square, so that a
            trained model is never clipped. A parameter that is zero everywhere (a fresh bias) counts as sigma = 0.1. Its
            zeros become the last rung, +-0.0047 at 8 bits, because the ladder has no zero.
        init: "quantize" rounds the present values to their nearest rungs. "uniform" is the paper's start: rungs are
            uniform on the ladder below sigma* = p_scale * sigma, and signs are random.
        include, exclude: fnmatch patterns or module classes, one or several. A string matches a parameter by its
            qualified name (``"layers.0.weight"``, ``"*.bias"``) or by that of a module above it (``"encoder"``); a class
            matches all parameters below its instances. `exclude` wins.
        bits_for: widths by such patterns, ``{"*.bias": 12}``; the first pattern that matches holds.
        seed: the signs of zeros and the values of ``init="uniform"`` are drawn from it.
        sign_seed: draw the signs of every parameter of two or more dimensions from this seed, in place of those that it
            has. It is for training from scratch with frozen signs (``Madam(sign_crossing=False)``), after which
            ``lognet.save(model, path, sign_seed=...)`` leaves those signs out. Default None: signs are kept.
        activation, gradient: the number formats to which the inputs of the wrapped layers, and the gradients of their
            outputs, are rounded: a quantizer of `lognet.quant`, bits (of the log format) or a name. See
            `lognet.set_quantizers`, which also changes them later. Default None: full precision.

    Raises:
        ValueError: NaN or infinity in a parameter, a parameter that is wrapped already or not yet initialised, a
            pattern that matches nothing, two widths for tied parameters, `Embedding(sparse=True)`, an argument out of
            bounds. Nothing is changed then.
        TypeError: a complex parameter or an argument of the wrong type.
        ImportError: a quantizer needs qtorch, which is missing or cannot be compiled.

    An Embedding's ``padding_idx`` row, if it is zero, stays exactly zero, by a mask of one bit a row. The zeros of a PHM
    layer's rule that is taken from an algebra, and what `lognet.convert.prune` has pruned, stay zero too. A layer made
    with ``bits=`` has the same bits as the float layer wrapped with the default seed. A warning says if a Madam holds
    parameters of the model already, because it would go on moving the old ones. Other optimizers are not checked.
    Gradients, hooks and attributes of the parameters are carried over.

    Source: Bernstein et al. 2020, sections 4.1 and 6 (sigma* is 1, 2 or 3 times the initialisation scale).

    >>> model = wrap(nn.Linear(4, 2), bits=8)
    >>> type(model.weight).__name__, model.weight.bits
    ('LogTensor', 8)
    """
    check_module(model)
    LogFormat(bits, base_precision)  # type: ignore[arg-type]
    if not isinstance(bits_for, Mapping | None):
        raise TypeError(f"bits_for must map patterns to bits, like {{'*.bias': 12}}, got {bits_for!r}")
    widths = dict(bits_for or {})
    check_positive("p_scale", p_scale)
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
    if not isinstance(seed, int):
        raise TypeError(f"seed must be an int, got {seed!r}")
    check_sign_seed(sign_seed)
    activation, gradient = check_quantizers(activation, gradient)

    held = [p for p in held_parameters(model) if p.tensor.is_floating_point() or p.tensor.is_complex()]
    _check_not_sharded(held)
    names = [name for p in held for name in p.names]
    choice = Choice(model, names, "parameter", include, exclude)
    wide = Matcher("bits_for", widths, model, names, "parameter")
    _check_widths(widths, base_precision)
    chosen = [p for p in held if choice.why_not(p.names) is None]
    for p in chosen:
        _check_parameter(p)
    formats = [LogFormat(_width(p, wide, widths, bits), base_precision) for p in chosen]  # type: ignore[arg-type]

    keys = {} if sign_seed is None else sign_keys(model, sign_seed)
    made = [
        few_bit_parameter(p, format, mix64(seed, i), p_scale=p_scale, init=init, sign_key=keys.get(id(p.tensor)))
        for i, (p, format) in enumerate(zip(chosen, formats, strict=True))
    ]

    _warn_of_madam(chosen)
    _replace(chosen, made)
    if activation is not None or gradient is not None:
        for layer in find_layers(model, [holder.module for p in chosen for holder in p.holders]):
            attach(layer, activation, gradient)
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """Turn every LogTensor parameter of a model back into a float parameter, in place, and return the model.

    The values are the decoded ones, in the dtype that the LogTensor reported. Pruned values are zero, and a
    `lognet.convert.prune.Pruner` keeps them zero. Quantizers of activations and gradients are removed. Make a new
    optimizer afterwards.

    Args:
        model: any module with LogTensor parameters.

    Raises:
        ValueError: the model has no LogTensor parameter.

    >>> type(unwrap(wrap(nn.Linear(4, 2))).weight).__name__
    'Parameter'
    """
    held = _wrapped_parameters(model)
    for name in quantizers_of(model):
        detach(model.get_submodule(name))
    _replace(held, [parameter_like(p.tensor, p.tensor.detach().dequantize()) for p in held])
    return model


def requantize(
    model: nn.Module,
    bits: int,
    *,
    base_precision: float | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> nn.Module:
    """Move the LogTensor parameters of a model to another width, in place, and return the model.

    Every parameter keeps its sigma*, signs and mask, and takes the nearest rungs of the new ladder. Quantizers of
    activations and gradients stay. Make a new optimizer afterwards.

    Args:
        model: any module with LogTensor parameters.
        bits: B of the new ladder, 2 to 16.
        base_precision, include, exclude: as in `wrap`.

    Raises:
        ValueError: the model has no LogTensor parameter, a pattern that matches nothing, an argument out of bounds.
            Nothing is changed then.
        TypeError: an argument of the wrong type.

    >>> requantize(wrap(nn.Linear(4, 2), bits=12), bits=8).weight.bits
    8
    """
    format = LogFormat(bits, base_precision)  # type: ignore[arg-type]
    held = _wrapped_parameters(model)
    choice = Choice(model, [name for p in held for name in p.names], "parameter", include, exclude)
    chosen = [p for p in held if choice.why_not(p.names) is None]
    made = [parameter_like(p.tensor, _on_ladder(p.tensor, format)) for p in chosen]  # type: ignore[arg-type]
    _warn_of_madam(chosen)
    _replace(chosen, made)
    return model


def _on_ladder(old: LogTensor, format: LogFormat) -> LogTensor:
    """The nearest rungs of another ladder of the same scale; without the mask."""
    exponent, negative = old.codes()
    magnitude = old.format.decode(exponent, torch.zeros_like(negative), old.scale, torch.float64)
    signs = 1 - 2 * negative.to(torch.int8)
    k = format.encode(magnitude, old.scale)
    return LogTensor.from_codes(k, signs, format.bits, old.scale, format.base_precision, old.dtype)


def _wrapped_parameters(model: nn.Module) -> list[HeldParameter]:
    check_module(model)
    held = held_parameters(model)
    _check_not_sharded(held)
    held = [p for p in held if isinstance(p.tensor, LogTensor)]
    if not held:
        raise ValueError(f"{type(model).__name__} has no LogTensor parameters; wrap it first with lognet.wrap(model)")
    return held


def _check_not_sharded(held: Iterable[HeldParameter]) -> None:
    for p in held:
        if hasattr(p.tensor, "device_mesh"):
            raise ValueError(f"{p.names[0]} is sharded over several processes (a DTensor); do this before fully_shard")


def _check_widths(widths: Mapping[Pattern, int], base_precision: float | None) -> None:
    for pattern, bits in widths.items():
        try:
            LogFormat(bits, base_precision)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise type(error)(f"bits_for[{pattern!r}]: {error}") from None


def _check_parameter(p: HeldParameter) -> None:
    """Raise ValueError or TypeError if no LogTensor can take the place of a parameter."""
    name, x = p.names[0], p.tensor
    if isinstance(x, LogTensor):
        raise ValueError(f"{name} is wrapped already; to change its width use lognet.requantize(model, bits=...)")
    if isinstance(x, UninitializedParameter):
        raise ValueError(f"{name} is not initialised yet; run the lazy module once on a sample before wrapping it")
    if x.is_complex():
        raise TypeError(f"{name} is complex ({x.dtype}); a ladder holds real numbers. Leave it out with exclude=")
    for holder in p.holders:
        if isinstance(holder.module, (nn.Embedding, nn.EmbeddingBag)) and holder.module.sparse:
            raise ValueError(
                f"{holder.name} belongs to an embedding with sparse=True, and LogTensors have dense gradients: set"
                " sparse=False"
            )


def _width(p: HeldParameter, matcher: Matcher, widths: Mapping[Pattern, int], bits: int) -> int:
    """The bits of a parameter: those of the first pattern that matches one of its names, else `bits`."""
    told = {name: widths[pattern] for name in p.names if (pattern := matcher.first([name])) is not None}
    if len(set(told.values())) > 1:
        each = ", ".join(f"{name} {width} bits" for name, width in told.items())
        raise ValueError(f"bits_for gives one tied parameter several widths: {each}; give it one")
    return next(iter(told.values()), bits)


def _replace(old: Sequence[HeldParameter], new: Sequence[nn.Parameter]) -> None:
    for p, parameter in zip(old, new, strict=True):
        for holder in p.holders:
            replace_parameter(holder.module, holder.attribute, parameter)


def _warn_of_madam(replaced: Iterable[HeldParameter]) -> None:
    """Warn if a Madam holds the parameters. Of other optimizers, only a scan of the whole heap could tell."""
    if is_moved_by_madam(p.tensor for p in replaced):
        warnings.warn(
            "a Madam optimizer holds parameters that were just replaced and would go on moving the old ones; make the"
            " optimizer after lognet.wrap or lognet.requantize",
            stacklevel=3,
        )
