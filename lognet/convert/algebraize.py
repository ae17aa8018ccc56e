"""Conversion: the layers of an existing model to layers over an algebra."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from ..nn.algebra import conv, recurrent
from ..nn.algebra.algebras import Algebra
from ..nn.algebra.attention import AlgebraMultiheadAttention
from ..nn.algebra.linear import AlgebraLinear
from ..nn.parameters import check_bits, make_parameter, write_
from ..tensor.log_tensor import LogTensor

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
_GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_DEEP = ("input_size", "hidden_size", "num_layers", "batch_first", "dropout", "bidirectional", "proj_size")
_HEADS = ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
# each layer that has a counterpart: that, and the arguments that they share, bias apart
_LAYERS: dict[type[nn.Module], tuple[Any, tuple[str, ...]]] = {
    nn.Linear: (AlgebraLinear, ("in_features", "out_features")),
    **{kind: (new, _GEOMETRY + ("output_padding",) * ("Transpose" in kind.__name__)) for kind, new in _CONVS.items()},
    nn.GRU: (recurrent.AlgebraGRU, _DEEP),
    nn.LSTM: (recurrent.AlgebraLSTM, _DEEP),
    nn.GRUCell: (recurrent.AlgebraGRUCell, ("input_size", "hidden_size")),
    nn.LSTMCell: (recurrent.AlgebraLSTMCell, ("input_size", "hidden_size")),
    nn.MultiheadAttention: (AlgebraMultiheadAttention, _HEADS),
}
_READERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)


@dataclass
class Algebraized:
    """What `algebraize` did.

    Attributes:
        model: the converted model.
        replaced: name of each replaced module, and the layer that stands there now.
        kept: name of each other module that holds matrices or kernels, and why it was left as it was.
        parameters: of the model, before and after (those of lazy modules not counted).

    >>> print(algebraize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)), "H"))
    replaced 0: AlgebraLinear(...)
    kept 1: ...
    99 parameters before, 51 after
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
    """Replace the layers of a model by layers over an algebra of the same real width, in place.

    Linear layers, convolutions (transposed ones too), GRUs, LSTMs, their cells and multi-head attention. Embeddings stay:
    over an algebra they are the same table. Layers with hooks stay, since a hook knows the layer it was put on, and so
    do grouped and depthwise convolutions whose groups do not hold whole tuples.

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
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
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
    inside: set[int] = set()  # parts of a layer that is replaced or kept as a whole
    for name, module in list(model.named_modules()):
        if id(module) in inside or not _has_weights(module):
            continue
        whole = isinstance(module, tuple(_LAYERS))
        inside |= {id(part) for name, part in module.named_modules() if whole or name.startswith("parametrizations")}
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
    return sum(p.numel() for p in model.parameters() if not is_lazy(p))


def _users(model: nn.Module) -> dict[int, list[nn.Module]]:
    """The modules that hold each parameter."""
    users: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            users.setdefault(id(p), []).append(module)
    return users


def _has_weights(module: nn.Module) -> bool:
    """Whether it is a layer: it holds matrices or kernels itself, or did before it was parametrized."""
    own = list(module.parameters(recurse=False))
    return type(module) in _LAYERS or is_parametrized(module) or any(is_lazy(p) or p.dim() > 1 for p in own)


def _obstacle(
    model: nn.Module, name: str, module: nn.Module, patterns: Iterable[Pattern], users: dict[int, list[nn.Module]]
) -> str | None:
    """Why a module stays as it is, if it does for a reason other than its sizes."""
    parts = module.named_modules(prefix=name) if isinstance(module, tuple(_LAYERS)) else [(name, module)]
    if any(_matches(part, m, pattern) for part, m in parts for pattern in patterns):
        return "skipped"
    kind = type(module).__name__
    if isinstance(getattr(module, "algebra", None), Algebra):
        return f"{kind} is over {module.algebra} already"
    if any(is_lazy(p) for p in module.parameters(recurse=False)):
        return f"{kind} is not initialised yet; run it once on a sample first"
    if is_parametrized(module):
        return f"its {' and '.join(sorted(module.parametrizations))} is parametrized"  # type: ignore[arg-type]
    if type(module) not in _LAYERS:
        exactly = isinstance(module, tuple(_LAYERS))
        nothing = f"the parameters of {kind} itself have no counterpart over an algebra"
        return f"{kind} is not exactly a layer of torch.nn" if exactly else nothing
    parents = [model.get_submodule(".".join(name.split(".")[:n])) for n in range(len(name.split(".")))] if name else []
    for parent in parents:
        if isinstance(parent, _READERS):
            return f"{type(parent).__name__} reads the weights of its layers itself"
    if any(len(users[id(p)]) > 1 for p in module.parameters()):
        return "it shares a parameter with another module"
    if any(not p.is_floating_point() for p in module.parameters()):
        return f"its parameters are {next(module.parameters()).dtype}, not real floating-point numbers"
    hooks = [hook for part in module.modules() for hook in _hooks(part)]
    if hooks:
        return (
            f"it has hooks ({', '.join(sorted(set(hooks)))}), which know the layer as it is; add them after converting"
        )
    return None


def _hooks(module: nn.Module) -> Iterator[str]:
    """The names of the hooks on a module and on its parameters: weight_norm, spectral_norm and pruning of torch too."""
    own = [getattr(module, registry, {}) for registry in _HOOKS]
    on_tensors = ("_backward_hooks", "_post_accumulate_grad_hooks")
    own += [getattr(p, registry) or {} for p in module.parameters(recurse=False) for registry in on_tensors]
    for hook in (hook for registry in own for hook in registry.values()):
        yield getattr(hook, "__qualname__", type(hook).__name__)


def _converted(module: Any, algebra: Algebra, bits: int | None, init: str) -> nn.Module:
    first = next(module.parameters())
    kind, names = _LAYERS[type(module)]
    arguments = {name: getattr(module, name) for name in names}
    if isinstance(module, nn.MultiheadAttention):
        arguments["add_bias_kv"] = module.bias_k is not None
        arguments["bias"] = module.in_proj_bias is not None
    else:
        arguments["bias"] = module.bias if isinstance(module.bias, bool) else module.bias is not None
    new = kind(**arguments, algebra=algebra, bits=bits, device=first.device, dtype=first.dtype)
    for name, p in _parameters(module):
        owner, _, attribute = name.rpartition(".")
        if init == "project":
            matrix = attribute.startswith("weight")
            values = project(p.detach(), algebra, getattr(module, "transposed", False)) if matrix else p.detach()
            if bits is None:
                write_(new.get_parameter(name), values)
            else:
                setattr(new.get_submodule(owner), attribute, make_parameter(values.contiguous(), bits))
        new.get_parameter(name).requires_grad_(p.requires_grad)
    return new.train(module.training)


def _parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a layer under the names that they have in its counterpart."""
    if not isinstance(module, nn.MultiheadAttention):
        yield from module.named_parameters()
        return
    parts = ("q_proj", "k_proj", "v_proj")
    for name, p in module.named_parameters():
        if name == "in_proj_weight" or name == "in_proj_bias":
            for part, piece in zip(parts, p.detach().chunk(3), strict=True):
                yield f"{part}.{name.removeprefix('in_proj_')}", piece.requires_grad_(p.requires_grad)
        else:  # q_proj_weight, out_proj.bias, bias_k
            yield name.replace("_proj_weight", "_proj.weight"), p


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
