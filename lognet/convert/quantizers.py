"""Few-bit activations and gradients: quantizers attached to the layers of a model.

Quantizers are forward hooks: picklable callables without tensors, so that they work in copies, spawned workers and
compiled graphs of the model. Only whole modules can have hooks; docs/quantizers.md says what that leaves out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils.hooks import RemovableHandle

from ..nn.kronecker.factored import TiedOutput
from ..nn.kronecker.recurrent import FactoredRNN
from ..quant import Quantizer, as_quantizer
from ..tensor.log_tensor import LogTensor
from .patterns import Choice, Patterns, check_module, module_names

WHOLE = (nn.MultiheadAttention, FactoredRNN, TiedOutput)
"""Layers that compute with the parameters of their parts themselves: hooks of the parts would never run."""

HOLDERS = (nn.ParameterList, nn.ParameterDict, ParametrizationList)
"""Modules that hold parameters for the module above them, and have no input of their own."""

_ATTRIBUTE = "_lognet_quantizers"
Done = list[tuple[Tensor, Tensor]]
"""Tensors and what they were mapped to, because self-attention asks whether query, key and value are one object."""


@dataclass(frozen=True)
class LayerQuantizers:
    """The quantizers of one layer, and the handles that remove them."""

    activation: Quantizer | None
    gradient: Quantizer | None
    handles: tuple[RemovableHandle, ...]


def set_quantizers(
    model: nn.Module,
    activation: Quantizer | int | str | None = None,
    gradient: Quantizer | int | str | None = None,
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> nn.Module:
    """Set the number formats of activations and gradients in the layers of a wrapped model, in place.

    The new formats replace the old ones; None is full precision. `lognet.wrap` does it for the layers that it wraps.

    A layer is a module that has LogTensor parameters of its own and calls no such layers itself, as `nn.Linear`,
    `nn.Conv2d`, `nn.LayerNorm`, `nn.Embedding`, `nn.LSTM`; and `nn.MultiheadAttention`, as a whole.

    - Activations: the floating tensors among a layer's arguments, except masks, are rounded before it computes, in
      training and in evaluation. If a layer takes indices, as an embedding does, its output is rounded.
    - Gradients: the gradients of the layer's outputs are rounded before its backward pass, and so before the gradients of
      its weights and inputs are computed from them.

    Rounding itself has the gradient of the identity (straight-through). It simulates the precision: tensors keep their
    dtype, so it saves neither memory nor time.

    Args:
        model: a module with LogTensor parameters.
        activation, gradient: a quantizer of `lognet.quant`; a number of bits, which means the log format; a name as
            `lognet.quant.as_quantizer` reads it ("fixed8"); or None. A quantizer made from bits or a name rounds
            activations to nearest, and gradients without bias (``rounding="stochastic"``).
        include, exclude: patterns as in `lognet.wrap`, which match layers; `exclude` wins. Other layers keep what they
            have.

    Returns:
        The model.

    Raises:
        ValueError: the model has no layers with LogTensor parameters, an unknown name, or a pattern that matches no
            layer. Nothing is changed then.
        TypeError: an argument of the wrong type.
        ImportError: a format needs qtorch, which is missing or cannot be compiled.

    >>> from lognet import wrap
    >>> model = set_quantizers(wrap(nn.Linear(4, 2)), activation=8, gradient=8)
    >>> [f"{q.activation} {q.gradient}" for q in quantizers_of(model).values()]
    ['log8 log8']
    """
    activation, gradient = check_quantizers(activation, gradient)
    check_module(model)
    layers = list(find_layers(model))
    if not layers:
        raise ValueError(f"{type(model).__name__} has no LogTensor parameters; wrap it first with lognet.wrap(model)")
    names = module_names(model)
    choice = Choice(model, [name for layer in layers for name in names[layer]], "layer", include, exclude)
    for layer in layers:
        if choice.why_not(names[layer]) is None:
            attach(layer, activation, gradient)
    return model


def check_quantizers(
    activation: Quantizer | int | str | None, gradient: Quantizer | int | str | None
) -> tuple[Quantizer | None, Quantizer | None]:
    """The two arguments as quantizers that are ready to be called, or the errors of `set_quantizers`."""
    made: list[Quantizer | None] = []
    for name, value, rounding in (("activation", activation, "nearest"), ("gradient", gradient, "stochastic")):
        try:
            made.append(None if value is None else as_quantizer(value, rounding))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    for quantizer in made:
        if quantizer is not None:
            quantizer.load()
    return made[0], made[1]


def quantizers_of(model: nn.Module) -> dict[str, LayerQuantizers]:
    """The quantizers of the layers of a model, by qualified name."""
    found = ((name, getattr(module, _ATTRIBUTE, None)) for name, module in model.named_modules())
    return {name: quantizers for name, quantizers in found if quantizers is not None}


def describe_quantizers(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The result of `quantizers_of` as numbers, strings and None."""
    return {
        name: {which: q and q.describe() for which, q in (("activation", own.activation), ("gradient", own.gradient))}
        for name, own in quantizers_of(model).items()
    }


def find_layers(model: nn.Module, owners: Iterable[nn.Module] | None = None) -> Iterator[nn.Module]:
    """The layers of a model that have LogTensor parameters, or parameters of `owners` where these are given; each once."""
    wanted = {id(m) for m in model.modules() if _wrapped(m)} if owners is None else {id(m) for m in owners}
    layers = {id(layer): layer for layer, holders in _layers(model) if any(id(m) in wanted for m in holders)}
    yield from layers.values()


def _wrapped(module: nn.Module) -> bool:
    return any(isinstance(p, LogTensor) for p in module._parameters.values())


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Every layer below a module with the modules that hold its parameters, whether they are LogTensors or not."""
    holders, parts = [module], []
    for name, child in module.named_children():
        if isinstance(child, HOLDERS) or name == "parametrizations" or isinstance(module, WHOLE):
            holders.extend(child.modules())
        else:
            parts.append(child)
    inner = [layer for part in parts for layer in _layers(part)]
    if inner:  # a module with layers below it is no layer itself
        yield from inner
    elif any(p is not None for m in holders for p in m._parameters.values()):
        yield module, holders


def attach(layer: nn.Module, activation: Quantizer | None, gradient: Quantizer | None) -> None:
    """Replace the quantizers of a layer. None in both removes them."""
    detach(layer)
    handles = []
    if activation is not None:
        names = list(inspect.signature(layer.forward).parameters)
        masks = frozenset(key for i, name in enumerate(names) if name.endswith("mask") for key in (i, name))
        handles.append(layer.register_forward_pre_hook(_Inputs(activation, masks), with_kwargs=True))
    if activation is not None or gradient is not None:
        handles.append(layer.register_forward_hook(_Outputs(activation, gradient), with_kwargs=True))
        setattr(layer, _ATTRIBUTE, LayerQuantizers(activation, gradient, tuple(handles)))


def detach(layer: nn.Module) -> None:
    """Remove the quantizers of a layer, if it has any."""
    own = getattr(layer, _ATTRIBUTE, None)
    if own is not None:
        for handle in own.handles:
            handle.remove()
        delattr(layer, _ATTRIBUTE)


@dataclass(frozen=True)
class _Inputs:
    """The forward pre-hook: the floating tensors among the arguments, rounded."""

    quantizer: Quantizer
    masks: frozenset[int | str]
    """Positions and names of arguments that are not activations."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        done: Done = []
        return (
            tuple(a if i in self.masks else _mapped(self.quantizer, a, done) for i, a in enumerate(args)),
            {name: a if name in self.masks else _mapped(self.quantizer, a, done) for name, a in kwargs.items()},
        )


@dataclass(frozen=True)
class _Outputs:
    """The forward hook: rounds the gradients of outputs, and the outputs themselves if the first argument is an index."""

    activation: Quantizer | None
    gradient: Quantizer | None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        given = (*args, *kwargs.values())
        first = given[0] if given else None
        if self.activation is not None and isinstance(first, Tensor) and not first.is_floating_point():
            output = _mapped(self.activation, output, [])
        return output if self.gradient is None else _mapped(self.gradient.backward, output, [])


def _mapped(function: Callable[[Tensor], Tensor], value: Any, done: Done) -> Any:
    """`function` of every floating tensor in tuples, lists and dicts. A tensor that occurs twice is mapped once."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        for old, new in done:
            if old is value:
                return new
        done.append((value, function(value)))
        return done[-1][1]
    if isinstance(value, tuple):
        parts = [_mapped(function, part, done) for part in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)  # a PackedSequence is a named tuple
    if isinstance(value, list):
        return [_mapped(function, part, done) for part in value]
    if isinstance(value, dict):
        return {key: _mapped(function, part, done) for key, part in value.items()}
    return value
