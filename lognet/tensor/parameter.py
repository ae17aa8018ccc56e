"""From float values to a few-bit parameter: the one way, for `lognet.wrap` and for the ``bits=`` of every layer.

The ladder has no zero. A zero that is only a start, as in a fresh bias, becomes the last rung with a sign drawn from a
key. A zero that means something, as in the padding row of an embedding, stays exactly zero because a mask says so.

Signs may be drawn from a seed. Files then hold the seed instead of the signs: B bits a weight rather than B + 1. Madam with
``sign_crossing=False``, as in the paper, never changes a sign, so the seed gives them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..quant.log_format import P_SCALE, LogFormat, parameter_scale, typical_magnitude
from ..quant.random_bits import mix64, random_bools, random_words
from .log_tensor import LogTensor
from .storage import check_finite

INITS = ("quantize", "uniform")
_OWN_ATTRIBUTES = ("_storage", "is_whole", "_is_param")  # in the __dict__ of a LogTensor parameter


@dataclass(frozen=True)
class Holder:
    """A module that holds a parameter, and the parameter's name in the model and in the module."""

    name: str
    module: nn.Module
    attribute: str


@dataclass
class HeldParameter:
    """A parameter of a model with all of its holders. A tied parameter has several."""

    tensor: Tensor
    holders: list[Holder] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The qualified names of the parameter."""
        return [holder.name for holder in self.holders]


def held_parameters(model: nn.Module) -> list[HeldParameter]:
    """The parameters of a model in the order of ``model.parameters()``, each once, with all holders under all names."""
    held: dict[int, HeldParameter] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in module._parameters.items():
            if tensor is not None:
                name = f"{path}.{attribute}" if path else attribute
                held.setdefault(id(tensor), HeldParameter(tensor)).holders.append(Holder(name, module, attribute))
    return list(held.values())


def few_bit_parameter(
    held: HeldParameter,
    format: LogFormat,
    key: int,
    *,
    p_scale: float = P_SCALE,
    init: str = "quantize",
    sign_key: int | None = None,
) -> nn.Parameter:
    """Make a LogTensor parameter of a float one. The module itself does not change.

    Args:
        held: the float parameter. Its `requires_grad`, gradient, hooks and attributes are carried over, and what
            `structural_mask` finds stays zero.
        format: the ladder.
        key: 64 bits that name the random stream for the signs of zeros and for ``init="uniform"``.
        p_scale: sigma* is ``max(p_scale * sigma, max |x|)``, with sigma the root mean square (0.1 if x is zero).
        init: "quantize" takes the nearest rungs; "uniform" draws rungs and signs uniformly, below ``p_scale * sigma``.
        sign_key: the stream that all signs are drawn from. Default None: signs are kept.

    Raises:
        ValueError: the parameter is on the meta device or holds NaN or infinity, or sigma* is out of bounds.
    """
    name, x = next(iter(held.names), "x"), held.tensor.detach()
    if x.is_meta:
        raise ValueError(
            f"bits={format.bits} needs values to quantise, and {name} is on the meta device, which has none; make the"
            " module on another device, or materialise it first with model.to_empty(device=...)"
        )
    check_finite(x, f"parameter {name}")
    bits, spacing = format.bits, format.base_precision
    try:
        if init == "uniform":
            words, scale = random_words(2 * x.numel(), key, x.device).view(2, *x.shape), p_scale * typical_magnitude(x)
            exponent, signs = words[0] % (format.last_rung + 1), 1 - 2 * (words[1] & 1)
            log = LogTensor.from_codes(exponent, signs, bits, scale, spacing, x.dtype)
        else:
            generator = torch.Generator(device=x.device).manual_seed(key & (2**63 - 1))
            log = LogTensor.from_float(x, bits, spacing, parameter_scale(x, p_scale), generator=generator)
    except ValueError as error:
        raise ValueError(f"parameter {name}: {error}") from None
    if sign_key is not None:
        draw_signs_(log, sign_key)
    keep = structural_mask(held)
    return parameter_like(held.tensor, log if keep is None else log.set_mask_(keep))


def parameter_like(old: Tensor, new: Tensor) -> nn.Parameter:
    """A parameter of `new` with the `requires_grad`, gradient, hooks and attributes of `old`."""
    parameter = nn.Parameter(new, requires_grad=old.requires_grad)
    parameter.grad = old.grad
    vars(parameter).update({name: value for name, value in vars(old).items() if name not in _OWN_ATTRIBUTES})
    if old._backward_hooks:
        parameter._backward_hooks = old._backward_hooks  # the same dictionary, because handles remove from it
    if old._post_accumulate_grad_hooks:
        parameter._post_accumulate_grad_hooks = old._post_accumulate_grad_hooks
    return parameter


def structural_mask(held: HeldParameter) -> Tensor | None:
    """False where zeros of a float parameter mean something and must stay zero; None if there are none.

    These are the padding row of an embedding, if it is zero, and the zeros of parameters that the class attribute
    `structural_zeros` of a module names: the rule A of a PHM layer, which may be taken from an algebra. A named parameter
    that is zero everywhere has none, because its zeros are a start.

    Returns:
        bool, of the parameter's shape, or (rows, 1) for padding rows.
    """
    x, masks = held.tensor.detach(), []
    for holder in held.holders:
        module, attribute = holder.module, holder.attribute
        if attribute in getattr(module, "structural_zeros", ()) and 0 < int(x.count_nonzero()) < x.numel():
            masks.append(x != 0)
        if attribute == "weight" and isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            padding = module.padding_idx
            if padding is not None and not bool(x[padding].any()):
                masks.append((torch.arange(len(x), device=x.device) != padding).unsqueeze(1))
    return reduce(torch.logical_and, masks) if masks else None


def check_sign_seed(sign_seed: int | None) -> None:
    """Raise TypeError if it is not an int or None."""
    if sign_seed is not None and (isinstance(sign_seed, bool) or not isinstance(sign_seed, int)):
        raise TypeError(f"sign_seed must be an int, or None to keep the signs, got {sign_seed!r}")


def sign_keys(model: nn.Module, sign_seed: int) -> dict[int, int]:
    """The keys of the streams that signs are drawn from, as {id of the parameter: 64-bit key}.

    Every parameter of two or more dimensions has one, by its index in ``model.parameters()``. Biases and gains have
    none, because their signs are not arbitrary (gains start at 1) and because they are few.
    """
    return {id(p): mix64(sign_seed, -1, i) for i, p in enumerate(model.parameters()) if not is_lazy(p) and p.dim() >= 2}


def draw_signs_(weight: LogTensor, key: int) -> None:
    """Replace the signs of a LogTensor by those of the stream `key`."""
    weight.write_codes_(weight.exponent, random_bools(weight.numel(), key, weight.device).view(weight.shape))
