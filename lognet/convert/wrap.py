"""Whole models: wrap float parameters as LogTensors, change their width, and turn them back."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from ..nn.algebra.masks import get_mask, set_mask
from ..nn.kronecker.factored import mask_structural_zeros
from ..optim.madam import is_moved_by_madam
from ..quant import Quantizer
from ..quant.log_format import P_SCALE, LogFormat, check_positive, parameter_scale, typical_magnitude
from ..quant.random_bits import mix64, random_words
from ..tensor.log_tensor import LogTensor
from ..tensor.seeded_signs import check_sign_seed, draw_signs_, sign_keys
from ..tensor.storage import check_finite
from .quantizers import attach, check_quantizers, detach, find_layers, quantizers_of

Pattern = str | type[nn.Module]
INITS = ("quantize", "uniform")


def wrap(
    model: nn.Module,
    bits: int = 8,
    *,
    base_precision: float | None = None,
    p_scale: float = P_SCALE,
    init: str = "quantize",
    include: Pattern | Iterable[Pattern] | None = None,
    exclude: Pattern | Iterable[Pattern] | None = None,
    bits_for: Mapping[str, int] | None = None,
    seed: int = 0,
    sign_seed: int | None = None,
    activation: Quantizer | int | str | None = None,
    gradient: Quantizer | int | str | None = None,
) -> nn.Module:
    """Make every floating parameter of a model a LogTensor parameter, in place, and return the model.

    Wrap before making the optimizer. Every layer gets the same width, output layer, biases and norms included,
    unless told otherwise. Tied parameters stay tied and ``requires_grad`` stays; buffers are left alone.

    Args:
        model: any module.
        bits: B, bits of the exponent, 2 to 16.
        base_precision: eta_0 for all parameters, in nats. Default: ``lognet.quant.default_base_precision`` of each
            parameter's width.
        p_scale: sigma* of a parameter is ``max(p_scale * sigma, max |x|)``, sigma its root mean square, so that a
            trained model is never clipped. An all-zero parameter (a fresh bias) counts as sigma = 0.1, and its
            zeros, which the ladder does not have, become the last rung: +-0.0047 at 8 bits.
        init: "quantize" rounds the present values to their nearest rungs; "uniform" is the paper's start, rungs
            uniform on the ladder below sigma* = p_scale * sigma with random signs.
        include, exclude: fnmatch patterns or module classes, one or several. A pattern holds for a parameter whose
            qualified name it matches (``"layers.0.weight"``, ``"*.bias"``) and for all parameters below a module that
            it matches (``"encoder"``); a class, for all parameters below its instances. `exclude` wins.
        bits_for: widths for parameters matched by patterns, ``{"*.bias": 12}``; the first pattern that matches holds.
        seed: of the signs of zeros and of ``init="uniform"``.
        sign_seed: draw the signs of every parameter of two or more dimensions from this seed, whatever they were:
            for training from scratch with frozen signs (``Madam(sign_crossing=False)``), after which
            ``lognet.save(model, path, sign_seed=...)`` leaves those signs out. Default None: signs are kept.
        activation, gradient: round what enters the wrapped layers, and the gradients of what leaves them, to a number
            format; a quantizer of `lognet.quant`, bits (of the log format) or a name. See `lognet.set_quantizers`, which
            also changes them later. Default None: full precision.

    Raises:
        ValueError: NaN or infinity in a parameter, a parameter that is wrapped already or not yet initialised, a
            pattern that matches nothing, tied parameters told to have two widths, `Embedding(sparse=True)`, an
            argument out of bounds. Nothing is changed then.
        TypeError: a complex parameter or an argument of the wrong type.
        ImportError: a quantizer needs qtorch, which is missing or cannot be compiled.

    An Embedding's ``padding_idx`` row, if it is zero, stays exactly zero, by a mask of one bit a row; so do the zeros of
    a PHM layer's rule taken from an algebra, and what `lognet.convert.prune` has pruned. A warning says if a Madam
    already holds parameters of the model: it would go on moving the old ones. (Of other optimizers nobody knows.)
    Gradients, hooks and attributes of the parameters are carried over.

    Source: Bernstein et al. 2020, sections 4.1 and 6 (sigma* is 1, 2 or 3 times the initialisation scale).

    >>> model = wrap(nn.Linear(4, 2), bits=8)
    >>> type(model.weight).__name__, model.weight.bits
    ('LogTensor', 8)
    """
    _check_module(model)
    if not isinstance(bits_for, Mapping | None):
        raise TypeError(f"bits_for must map patterns to bits, like {{'*.bias': 12}}, got {bits_for!r}")
    include, exclude = (None if p is None else _listed(p) for p in (include, exclude))  # generators are read once
    ladder = _Ladders(bits, base_precision, dict(bits_for or {}))
    check_positive("p_scale", p_scale)
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
    if not isinstance(seed, int):
        raise TypeError(f"seed must be an int, got {seed!r}")
    check_sign_seed(sign_seed)
    slots = [slot for slot in _slots(model) if slot.tensor.is_floating_point() or slot.tensor.is_complex()]
    _check_not_sharded(slots)
    _check_patterns(model, slots, {"include": include, "exclude": exclude, "bits_for": ladder.bits_for})
    activation, gradient = check_quantizers(activation, gradient)
    chosen = _choose(model, slots, include, exclude)
    made: dict[int, nn.Parameter] = {}
    keys = {} if sign_seed is None else sign_keys(model, sign_seed)
    for slot in chosen:
        if id(slot.tensor) not in made:
            names = [other for other in chosen if other.tensor is slot.tensor]
            for name in names:
                _check_parameter(name)
            tensor = _quantized(slot, ladder.format_of(model, names), p_scale, init, mix64(seed, len(made)))
            if id(slot.tensor) in keys:
                draw_signs_(tensor, keys[id(slot.tensor)])
            _mask_zeros(slot.tensor, names, tensor)
            made[id(slot.tensor)] = _parameter_like(slot.tensor, tensor)
    _replace(model, chosen, made)
    if activation is not None or gradient is not None:
        for layer in find_layers(model, [slot.owner for slot in chosen]):
            attach(layer, activation, gradient)
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """Turn every LogTensor parameter of a model back into a float parameter, in place, and return the model.

    The values are those that the LogTensors stood for, in the dtype that they reported; the pruned are zero, and a
    `lognet.convert.prune.Pruner` goes on holding them there. Quantizers of activations and gradients are taken off. Make a new
    optimizer.

    Args:
        model: any module with LogTensor parameters.

    Raises:
        ValueError: the model has no LogTensor parameter.

    >>> type(unwrap(wrap(nn.Linear(4, 2))).weight).__name__
    'Parameter'
    """
    slots = _wrapped_slots(model)
    made = {id(s.tensor): _parameter_like(s.tensor, s.tensor.detach().dequantize()) for s in slots}
    for name in quantizers_of(model):
        detach(model.get_submodule(name))
    _replace(model, slots, made, warn=False)  # an optimizer is done with by now: that is the usual end of training
    return model


def requantize(
    model: nn.Module,
    bits: int,
    *,
    base_precision: float | None = None,
    include: Pattern | Iterable[Pattern] | None = None,
    exclude: Pattern | Iterable[Pattern] | None = None,
) -> nn.Module:
    """Move the LogTensor parameters of a model to another width, in place, and return the model.

    Every parameter keeps its sigma*, signs and mask, and takes the nearest rungs of the new ladder; quantizers of
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
    slots = _wrapped_slots(model)
    include, exclude = (None if p is None else _listed(p) for p in (include, exclude))  # generators are read once
    _check_patterns(model, slots, {"include": include, "exclude": exclude})
    chosen = _choose(model, slots, include, exclude)
    made = {}
    for old in {id(slot.tensor): slot.tensor for slot in chosen}.values():
        assert isinstance(old, LogTensor)
        exponent, negative = old.codes()
        magnitude = old.format.decode(exponent, torch.zeros_like(negative), old.scale, torch.float64)
        k = format.encode(magnitude, old.scale)
        signs = 1 - 2 * negative.to(torch.int8)
        new = LogTensor.from_codes(k, signs, bits, old.scale, format.base_precision, old.dtype)
        made[id(old)] = _parameter_like(old, new)
    _replace(model, chosen, made)
    return model


@dataclass
class _Slot:
    """A place in a module that holds a parameter; tied parameters have several."""

    name: str
    owner: nn.Module
    attribute: str
    tensor: Tensor


@dataclass
class _Ladders:
    """Which width a parameter gets."""

    bits: int
    base_precision: float | None
    bits_for: dict[str, int]

    def __post_init__(self) -> None:
        LogFormat(self.bits, self.base_precision)  # type: ignore[arg-type]
        for pattern, width in self.bits_for.items():
            try:
                LogFormat(width, self.base_precision)  # type: ignore[arg-type]
            except (TypeError, ValueError) as error:
                raise type(error)(f"bits_for[{pattern!r}]: {error}") from None

    def format_of(self, model: nn.Module, names: list[_Slot]) -> LogFormat:
        """The format of one parameter, under all the names that tie it."""
        widths = {}  # by name, where a pattern says one
        for slot in names:
            for pattern, width in self.bits_for.items():
                if slot.name not in widths and _matches(model, slot, pattern):
                    widths[slot.name] = width
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{name} {width} bits" for name, width in widths.items())
            raise ValueError(f"bits_for gives one tied parameter several widths: {told}; give it one")
        return LogFormat(next(iter(widths.values()), self.bits), self.base_precision)  # type: ignore[arg-type]


def _slots(model: nn.Module) -> Iterator[_Slot]:
    for path, module in model.named_modules(remove_duplicate=False):  # a shared module, under all its names
        for attribute, tensor in module._parameters.items():
            if tensor is not None:
                yield _Slot(f"{path}.{attribute}" if path else attribute, module, attribute, tensor)


def _check_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _wrapped_slots(model: nn.Module) -> list[_Slot]:
    _check_module(model)
    _check_not_sharded(_slots(model))
    slots = [slot for slot in _slots(model) if isinstance(slot.tensor, LogTensor)]
    if not slots:
        raise ValueError(f"{type(model).__name__} has no LogTensor parameters; wrap it first with lognet.wrap(model)")
    return slots


def _choose(
    model: nn.Module,
    slots: list[_Slot],
    include: Pattern | Iterable[Pattern] | None,
    exclude: Pattern | Iterable[Pattern] | None,
) -> list[_Slot]:
    """The slots of the parameters that any of their names includes and none excludes: tied parameters stay tied."""
    taken = {id(s.tensor) for s in slots if include is None or _matches(model, s, include)}
    left = {id(s.tensor) for s in slots if _matches(model, s, exclude)}
    return [s for s in slots if id(s.tensor) in taken - left]


def _listed(patterns: Pattern | Iterable[Pattern] | None) -> list[Pattern]:
    if patterns is None:
        return []
    return list(patterns) if isinstance(patterns, Iterable) and not isinstance(patterns, (str, type)) else [patterns]


def _matches(model: nn.Module, slot: _Slot, patterns: Pattern | Iterable[Pattern] | None) -> bool:
    path = slot.name.split(".")
    names = [".".join(path[:n]) for n in range(1, len(path) + 1)]  # the modules above it, then the parameter itself
    for pattern in _listed(patterns):
        if isinstance(pattern, str):
            if any(fnmatch.fnmatchcase(name, pattern) for name in names):
                return True
        elif any(isinstance(model.get_submodule(name), pattern) for name in ["", *names[:-1]]):
            return True
    return False


def _check_patterns(model: nn.Module, slots: list[_Slot], arguments: Mapping[str, object]) -> None:
    for argument, patterns in arguments.items():
        for pattern in _listed(patterns):  # type: ignore[arg-type]
            if not isinstance(pattern, str) and not (isinstance(pattern, type) and issubclass(pattern, nn.Module)):
                raise TypeError(f"{argument} takes fnmatch patterns and torch.nn.Module classes, got {pattern!r}")
            if not any(_matches(model, slot, pattern) for slot in slots):
                shown = pattern if isinstance(pattern, str) else pattern.__name__
                some = ", ".join(slot.name for slot in slots[:5])
                raise ValueError(
                    f"{argument}: {shown!r} matches no parameter; the model has {some}{', ...' * (len(slots) > 5)}"
                )


def _check_not_sharded(slots: Iterable[_Slot]) -> None:
    for slot in slots:
        if hasattr(slot.tensor, "device_mesh"):
            raise ValueError(f"{slot.name} is sharded over several processes (a DTensor); do this before fully_shard")


def _check_parameter(slot: _Slot) -> None:
    name, tensor = slot.name, slot.tensor
    if isinstance(tensor, LogTensor):
        raise ValueError(f"{name} is wrapped already; to change its width use lognet.requantize(model, bits=...)")
    if isinstance(tensor, UninitializedParameter):
        raise ValueError(f"{name} is not initialised yet; run the lazy module once on a sample before wrapping it")
    if tensor.is_complex():
        raise TypeError(f"{name} is complex ({tensor.dtype}); a ladder holds real numbers. Leave it out with exclude=")
    if tensor.is_meta:
        raise ValueError(f"{name} is on the meta device and has no values to quantise; materialise the model first")
    if isinstance(slot.owner, (nn.Embedding, nn.EmbeddingBag)) and slot.owner.sparse:
        raise ValueError(
            f"{name} belongs to an embedding with sparse=True; LogTensors have dense gradients: set sparse=False"
        )
    check_finite(tensor.detach(), f"parameter {name}")


def _quantized(slot: _Slot, format: LogFormat, p_scale: float, init: str, key: int) -> LogTensor:
    x = slot.tensor.detach()
    generator = torch.Generator(device=x.device).manual_seed(key & (2**63 - 1))
    try:
        if init == "uniform":
            words = random_words(2 * x.numel(), key, x.device).view(2, *x.shape)
            scale = p_scale * typical_magnitude(x)
            exponent, signs = words[0] % (format.last_rung + 1), 1 - 2 * (words[1] & 1)
            return LogTensor.from_codes(exponent, signs, format.bits, scale, format.base_precision, x.dtype)
        scale = parameter_scale(x, p_scale)
        return LogTensor.from_float(x, format.bits, format.base_precision, scale, generator=generator)
    except ValueError as error:
        raise ValueError(f"parameter {slot.name}: {error}") from None


def _mask_zeros(old: Tensor, names: list[_Slot], new: LogTensor) -> None:
    """Keep the zero padding row of an embedding zero, also where a linear layer shares the weight, and a rule's zeros."""
    for slot in names:
        mask_structural_zeros(slot.owner, slot.attribute, old, new)
        padding = slot.owner.padding_idx if isinstance(slot.owner, (nn.Embedding, nn.EmbeddingBag)) else None
        padding = padding if slot.attribute == "weight" else None  # not of what a subclass adds
        if padding is not None and not bool(old.detach()[padding].any()):
            mask = torch.ones(new.shape[0], 1, dtype=torch.bool, device=new.device)
            if new.mask is not None:  # the padding row of another embedding that shares the weight
                mask = new.mask[:, :1]
            mask[padding] = False
            new.set_mask_(mask)


_MADE_OF = ("_storage", "_whole", "_is_param")  # what a parameter of LogTensors keeps among its attributes


def _parameter_like(old: Tensor, new: Tensor) -> nn.Parameter:
    """A parameter that takes the place of `old`: with its gradient, its hooks, and the attributes that users set on it."""
    parameter = nn.Parameter(new, requires_grad=old.requires_grad)
    parameter.grad = old.grad
    vars(parameter).update({name: value for name, value in vars(old).items() if name not in _MADE_OF})
    if old._backward_hooks:
        parameter._backward_hooks = old._backward_hooks  # the same dictionary: handles remove from it
    if old._post_accumulate_grad_hooks:
        parameter._post_accumulate_grad_hooks = old._post_accumulate_grad_hooks
    return parameter


def _replace(model: nn.Module, slots: list[_Slot], made: Mapping[int, nn.Parameter], warn: bool = True) -> None:
    if warn:
        _warn_of_optimizers(slot.tensor for slot in slots)
    masks = [get_mask(slot.owner, slot.attribute) for slot in slots]
    for slot, mask in zip(slots, masks, strict=True):
        # setattr, not the _parameters dict: recurrent layers keep a list of their weights in step
        setattr(slot.owner, slot.attribute, made[id(slot.tensor)])
        if mask is not None:
            new = made[id(slot.tensor)]
            own = new.mask if isinstance(new, LogTensor) else None  # of a padding row
            set_mask(slot.owner, slot.attribute, mask if own is None else mask & own)


def _warn_of_optimizers(replaced: Iterable[Tensor]) -> None:
    """Of Madam only: who holds a parameter for another optimizer, just a scan of the whole heap could tell."""
    if is_moved_by_madam(replaced):
        warnings.warn(
            "a Madam optimizer holds parameters that were just replaced and would go on moving the old ones; make the"
            " optimizer after lognet.wrap or lognet.requantize",
            stacklevel=4,
        )
