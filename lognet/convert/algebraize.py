"""The layers of an existing model replaced by layers over an algebra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from ..nn.algebra import conv, recurrent
from ..nn.algebra.algebras import Algebra
from ..nn.algebra.attention import AlgebraMultiheadAttention
from ..nn.algebra.linear import AlgebraLinear
from ..nn.parameters import check_bits, quantize_parameters_, write_
from ..tensor.log_tensor import LogTensor
from .patterns import ARGUMENTS, Choice, Patterns, biases_of, check_module, module_names
from .report import ConversionReport, ReplacedLayer, count_parameters

INITS = ("project", "glorot")

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_CELL = ("input_size", "hidden_size")
# for each layer that has a counterpart over an algebra: the counterpart, and the arguments of both, without biases
_LAYERS: dict[type[nn.Module], tuple[Any, tuple[str, ...]]] = {
    nn.Linear: (AlgebraLinear, ARGUMENTS[nn.Linear]),
    **{getattr(nn, f"Conv{d}d"): (getattr(conv, f"AlgebraConv{d}d"), _CONV) for d in (1, 2, 3)},
    **{
        getattr(nn, f"ConvTranspose{d}d"): (getattr(conv, f"AlgebraConvTranspose{d}d"), (*_CONV, "output_padding"))
        for d in (1, 2, 3)
    },
    nn.GRU: (recurrent.AlgebraGRU, ARGUMENTS[nn.GRU]),
    nn.LSTM: (recurrent.AlgebraLSTM, ARGUMENTS[nn.LSTM]),
    nn.GRUCell: (recurrent.AlgebraGRUCell, _CELL),
    nn.LSTMCell: (recurrent.AlgebraLSTMCell, _CELL),
    nn.MultiheadAttention: (AlgebraMultiheadAttention, ARGUMENTS[nn.MultiheadAttention]),
}
_READERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)


def algebraize(
    model: nn.Module,
    algebra: str | Algebra = "M2R",
    *,
    bits: int | None = None,
    init: str = "project",
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> tuple[nn.Module, ConversionReport]:
    """Replace the layers of a model by layers over an algebra of the same real width, in place.

    Linear layers, convolutions (transposed ones too), GRUs, LSTMs, their cells and multi-head attention are replaced.
    Embeddings stay, because over an algebra they are the same table. Layers with hooks stay, because a hook knows the
    layer that it was put on. Grouped and depthwise convolutions stay if a group does not hold whole tuples.

    Real inputs and outputs of the model are left to the caller: a first layer of 3 channels stays real, since 3 is no
    multiple of A, and a last layer that should give plain logits is best excluded.

    Args:
        model: any module with float parameters.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B: LogTensors in the layers that are replaced, as `lognet.wrap` makes them.
        init: "project": the weight over the algebra whose dense expansion is nearest to the present weight (biases are
            taken over); "glorot": a fresh one.
        include, exclude: patterns as in `lognet.wrap`, which match modules; `exclude` wins. A pattern that matches a part
            of a layer holds for the layer.

    Returns:
        The model (a new module only if the model itself is a layer to be replaced) and a `ConversionReport`: what was
        replaced, what was not, and why.

    Raises:
        TypeError: a pattern that is neither a string nor a module class.
        ValueError: a pattern that matches no module, an unknown algebra or init, LogTensor parameters (unwrap first).

    >>> model, report = algebraize(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8)), "H")
    >>> model[1]
    AlgebraLinear(8, 8, algebra=H, bias=True)
    >>> report.kept
    {'0': 'in_features=6 must be a positive multiple of 4, the tuple size of H; nearest is 8'}
    """
    check_module(model)
    algebra = Algebra.of(algebra)
    check_bits(bits)
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
    if any(isinstance(p, LogTensor) for p in model.parameters()):
        raise ValueError("the model has LogTensor parameters; convert it before lognet.wrap, or after lognet.unwrap")
    names = module_names(model)
    choice = Choice(model, [name for every in names.values() for name in every], "module", include, exclude)
    report = ConversionReport(count_parameters(model), 0)
    users: dict[int, list[nn.Module]] = {}  # the modules that hold each parameter
    for holder in model.modules():
        for p in holder.parameters(recurse=False):
            users.setdefault(id(p), []).append(holder)
    made: dict[nn.Module, nn.Module] = {}
    inside: set[nn.Module] = set()  # parts of a layer that is replaced or kept as a whole
    for name, module in list(model.named_modules()):
        if module in inside or not _has_weights(module):
            continue
        whole = isinstance(module, tuple(_LAYERS))
        inside |= {part for name, part in module.named_modules() if whole or name.startswith("parametrizations")}
        parts = module.modules() if whole else [module]
        why = choice.why_not([n for part in parts for n in names[part]]) or _obstacle(model, name, module, users)
        if why is None:
            try:
                new = made[module] = _converted(module, algebra, bits, init)
                sizes = (count_parameters(module), count_parameters(new))
                report.layers.append(ReplacedLayer((name,), type(new).__name__, *sizes))
            except ValueError as error:
                why = str(error)
        if why is not None:
            report.kept[name] = why
    for owner in list(model.modules()):
        for child, module in list(owner._modules.items()):
            if module in made:
                setattr(owner, child, made[module])
    model = made.get(model, model)
    report.after = count_parameters(model)
    return model, report


def _has_weights(module: nn.Module) -> bool:
    """Whether a module holds matrices or kernels itself, or did before it was parametrized."""
    own = list(module.parameters(recurse=False))
    return type(module) in _LAYERS or is_parametrized(module) or any(is_lazy(p) or p.dim() > 1 for p in own)


def _obstacle(model: nn.Module, name: str, module: nn.Module, users: dict[int, list[nn.Module]]) -> str | None:
    """Why a module stays as it is, if it does for a reason other than patterns and its sizes."""
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
    """The names of the hooks on a module and on its parameters. torch's weight_norm, spectral_norm and pruning are hooks."""
    own = [getattr(module, registry, {}) for registry in _HOOKS]
    on_tensors = ("_backward_hooks", "_post_accumulate_grad_hooks")
    own += [getattr(p, registry) or {} for p in module.parameters(recurse=False) for registry in on_tensors]
    for hook in (hook for registry in own for hook in registry.values()):
        yield getattr(hook, "__qualname__", type(hook).__name__)


def _converted(module: Any, algebra: Algebra, bits: int | None, init: str) -> nn.Module:
    first = next(module.parameters())
    kind, names = _LAYERS[type(module)]
    arguments = {name: getattr(module, name) for name in names} | biases_of(module)
    new = kind(**arguments, algebra=algebra, device=first.device, dtype=first.dtype)
    for name, p in _parameters(module):
        target = new.get_parameter(name)
        if init == "project":
            matrix = name.rpartition(".")[2].startswith("weight")
            write_(target, project(p.detach(), algebra, getattr(module, "transposed", False)) if matrix else p.detach())
        target.requires_grad_(p.requires_grad)
    quantize_parameters_(new, bits)
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
