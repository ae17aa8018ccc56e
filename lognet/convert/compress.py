"""Whole models with fewer parameters: linear, embedding, attention and recurrent layers replaced by factored ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.checks import check_count
from ..nn.kronecker.factored import FactoredEmbedding, FactoredLinear, TiedOutput
from ..nn.kronecker.phm import PHMLinear
from ..tensor.log_tensor import LogTensor
from ..tensor.storage import check_finite
from .factorizations import Factorization
from .patterns import Choice, Matcher, Pattern, Patterns, check_module
from .report import ConversionReport, ReplacedLayer, count_parameters, shown_name

_KINDS = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.LSTM, nn.GRU)
Spec = Factorization | Mapping[Pattern, Factorization | None]


def compress(
    model: nn.Module,
    spec: Spec,
    *,
    from_weights: bool = False,
    min_parameters: int = 4096,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> tuple[nn.Module, ConversionReport]:
    """Replace a model's Linear, Embedding, MultiheadAttention, LSTM and GRU layers by factored ones, in place.

    Compress before `lognet.wrap` and before making the optimizer. Layers that share a weight (an output layer and its
    embedding) share one factored table afterwards, and the output layer becomes a `TiedOutput`.

    Args:
        model: any module.
        spec: `Kronecker`, `PHM`, `LowRank` or `Word2KetXS` for all layers that it has a replacement for; or a mapping
            from patterns, as in `lognet.wrap`, to one of them, or to None for layers to be left alone. The first pattern
            that matches a layer (of tied layers: any of them) holds.
        from_weights: start from the trained weights: every matrix becomes the nearest one of its new form, by a
            truncated singular value decomposition (the result is exact if the rank suffices). Default: draw new factors,
            as the thesis does, such that every matrix has the root mean square of the old one. Biases stay in both cases.
            All parameters of a new layer have the requires_grad of the old weight.
        min_parameters: layers with a smaller weight are left alone, unless a pattern of the spec names them exactly.
        include, exclude: patterns of layers to replace, and not to; `exclude` wins. What holds for one of several tied
            layers holds for all.

    Returns:
        The model (a new module only if the model itself is a layer to be replaced) and a `ConversionReport`: what was
        replaced, what was not, and why.

    Raises:
        ValueError: a pattern that matches no layer, an entry that has no replacement for a layer that it names, sizes
            that n does not divide, from_weights with a higher-order Word2KetXS or a shared rule of PHM, an embedding
            with max_norm, sparse or scale_grad_by_freq, NaN or infinity in a weight, LogTensor parameters. Nothing is
            changed then.
        TypeError: a spec of another kind.

    Source: "Shapeshifter", section 4.3 (replace); Van Loan and Pitsianis 1993 (nearest sums).

    >>> from lognet import PHM, Kronecker
    >>> model = nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    >>> model, report = compress(model, {nn.Embedding: Kronecker(rank=8), nn.Linear: PHM(n=4)})
    >>> report.before, report.after, [layer.became for layer in report.layers]
    (97088, 12736, ['KroneckerEmbedding', 'PHMLinear', 'PHMLinear'])
    """
    check_module(model)
    rules: Mapping[Pattern, Factorization | None] = spec if isinstance(spec, Mapping) else {"*": spec}
    for rule in rules.values():
        if (rule is not None or rules is not spec) and (not hasattr(rule, "replacement") or isinstance(rule, type)):
            remedy = "or None" if rules is spec else "or a mapping to them"
            raise TypeError(f"spec takes Kronecker, PHM, LowRank, Word2KetXS {remedy}, got {rule!r}")
    check_count("min_parameters", min_parameters, least=0)
    groups = list(_groups(model))
    names = [name for group in groups for name, _ in group]
    matcher = Matcher("spec", rules if names or rules is spec else (), model, names, "layer")
    choice = Choice(model, names, "layer", include, exclude)
    report = ConversionReport(count_parameters(model), 0)
    plan: list[tuple[list[tuple[str, nn.Module]], nn.Module, ReplacedLayer]] = []
    for group in groups:
        own = tuple(name for name, _ in group)
        head = next((layer for _, layer in group if isinstance(layer, nn.Embedding)), group[0][1])
        pattern = matcher.first(own)
        size = max(p.numel() for p in group[0][1].parameters())
        if (why := choice.why_not(own)) is None:
            if pattern is None:
                why = "no pattern of spec matches it"
            elif (rule := rules[pattern]) is None:
                why = f"spec says None for {pattern if isinstance(pattern, str) else pattern.__name__}"
            elif size < min_parameters and pattern not in own:
                why = f"its weight has {size:,} numbers, fewer than min_parameters={min_parameters:,}"
            elif (new := _make(own[0], head, rule, rules is spec and isinstance(pattern, str))) is None:
                why = f"{rule} has no replacement for {type(head).__name__}"
            else:
                error = _start(new, head, from_weights)
                before = count_parameters(*(layer for _, layer in group))
                plan.append((group, new, ReplacedLayer(own, type(new).__name__, before, 0, error)))
        if why is not None:
            report.kept |= dict.fromkeys(own, why)
    for group, new, entry in plan:
        made = []
        for name, layer in group:
            made.append(_shared(new, layer))
            model = _replace(model, name, layer, made[-1])
        entry.after = count_parameters(*made)
        report.layers.append(entry)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):  # its nested tensors are for torch's own attention only
            module.use_nested_tensor = False
    report.after = count_parameters(model)
    return model, report


def _groups(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Groups of layers that may be replaced, as (name, layer). A group shares one weight; a layer has all of its names."""
    found: dict[int, list[tuple[str, nn.Module]]] = {}
    inside: set[int] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if id(module) in inside or not isinstance(module, _KINDS):
            continue
        inside |= {id(child) for child in module.modules()} - {id(module)}
        weight = module.weight if isinstance(module, (nn.Linear, nn.Embedding)) else module
        found.setdefault(id(weight), []).append((name, module))
    return iter(found.values())


def _make(name: str, layer: nn.Module, rule: Factorization, named: bool) -> nn.Module | None:
    weight = next(layer.parameters())
    _check_layer(name, layer)
    try:
        new = rule.replacement(layer, {"device": weight.device, "dtype": weight.dtype})
    except ValueError as error:
        raise ValueError(f"layer {shown_name(name)}: {error}") from None
    if new is None and named:
        raise ValueError(
            f"layer {shown_name(name)}: {rule} has no replacement for {type(layer).__name__}; give another, or None"
        )
    return None if new is None else new.train(layer.training).requires_grad_(weight.requires_grad)


def _check_layer(name: str, layer: nn.Module) -> None:
    """Raise ValueError for what a replacement would silently leave out."""
    name = shown_name(name)
    for parameter, p in layer.named_parameters():
        if isinstance(p, LogTensor):
            raise ValueError(
                f"layer {name}: {parameter} is a LogTensor; compress before lognet.wrap, or lognet.unwrap first"
            )
        if not p.is_meta:
            check_finite(p.detach(), f"layer {name}: {parameter}")
    for option in ("max_norm", "sparse", "scale_grad_by_freq"):
        if getattr(layer, option, None):
            value = getattr(layer, option)
            raise ValueError(
                f"layer {name}: an embedding with {option}={value} has no factored replacement; leave it out"
            )


def _shared(new: nn.Module, layer: nn.Module) -> nn.Module:
    """The replacement of one of several tied layers: the table itself, or an output layer on it."""
    if isinstance(new, FactoredEmbedding) and isinstance(layer, nn.Linear):
        output = TiedOutput(new, bias=layer.bias is not None).train(layer.training)
        if output.bias is not None:
            with torch.no_grad():
                output.bias.copy_(layer.bias)
        return output
    return new


def _replace(model: nn.Module, name: str, old: nn.Module, new: nn.Module) -> nn.Module:
    if not name:
        return new
    parent, _, attribute = name.rpartition(".")
    if getattr(model.get_submodule(parent), attribute) is old:
        setattr(model.get_submodule(parent), attribute, new)
    return model


# Starting values, from pairs of a factored layer and the matrix that it replaces.


@torch.no_grad()
def _start(new: nn.Module, old: nn.Module, from_weights: bool) -> float | None:
    """Fit every matrix of the new layer, or scale it to the old one's root mean square; the relative error if fitted."""
    missed = total = 0.0
    for target, matrix in _PAIRS[next(kind for kind in _PAIRS if isinstance(old, kind))](new, old):
        if matrix.is_meta:
            continue
        if not from_weights:
            _rescale(target, matrix)
            continue
        target.fit_(matrix)
        missed += float((target.weight - matrix).double().square().sum())
        total += float(matrix.double().square().sum())
    return ((missed / total) ** 0.5 if total else 0.0) if from_weights else None


def _rescale(target: FactoredLinear | FactoredEmbedding, matrix: Tensor) -> None:
    """Multiply freshly drawn factors so that the root mean square of their product is that of the matrix."""
    drawn = 2 / (target.in_features + target.out_features) if isinstance(target, FactoredLinear) else 1.0
    ratio = (float(matrix.double().square().mean()) / drawn) ** 0.5
    factors = target.factors()[1:] if isinstance(target, PHMLinear) else target.factors()
    if ratio > 0:
        for factor in factors:
            factor.mul_(ratio ** (1 / len(factors)))


Pairs = Iterator[tuple[Any, Tensor]]


def _linear_pairs(new: Any, old: nn.Linear) -> Pairs:
    if isinstance(new, FactoredLinear) and new.bias is not None:
        new.bias.copy_(old.bias)
    yield new, old.weight


def _embedding_pairs(new: Any, old: nn.Embedding) -> Pairs:
    yield new, old.weight


def _attention_pairs(new: Any, old: nn.MultiheadAttention) -> Pairs:
    targets = (new.qkv_proj,) if new.fused else (new.q_proj, new.k_proj, new.v_proj)
    if old.in_proj_weight is not None:
        weights = old.in_proj_weight.chunk(len(targets))
    else:
        weights = (old.q_proj_weight, old.k_proj_weight, old.v_proj_weight)
    if old.bias_k is not None:
        new.bias_k.copy_(old.bias_k)
        new.bias_v.copy_(old.bias_v)
    if old.in_proj_bias is not None:
        for target, bias in zip(targets, old.in_proj_bias.chunk(len(targets)), strict=True):
            target.bias.copy_(bias)
        new.out_proj.bias.copy_(old.out_proj.bias)
    yield from zip(targets, weights, strict=True)
    yield new.out_proj, old.out_proj.weight


def _recurrent_pairs(new: Any, old: nn.LSTM | nn.GRU) -> Pairs:
    suffixes = [
        f"l{k}{reverse}" for k in range(old.num_layers) for reverse in ("", "_reverse")[: 1 + old.bidirectional]
    ]
    for i, suffix in enumerate(suffixes):
        if old.bias:
            bias_ih, bias_hh = (getattr(old, f"bias_{side}_{suffix}") for side in ("ih", "hh"))
            if new.hidden_bias:
                getattr(new, f"bias_hh_{suffix}").copy_(bias_hh)
            else:
                bias_ih = bias_ih + bias_hh
            getattr(new, f"bias_ih_{suffix}").copy_(bias_ih)
        for side, layers in (("ih", new.input_layers), ("hh", new.hidden_layers)):
            gates: Any = layers[i]
            yield from zip(gates, getattr(old, f"weight_{side}_{suffix}").chunk(len(gates)), strict=True)
        if old.proj_size:
            yield new.projections[i][0], getattr(old, f"weight_hr_{suffix}")


_PAIRS: dict[type[nn.Module], Callable[..., Pairs]] = {
    nn.Linear: _linear_pairs,
    nn.Embedding: _embedding_pairs,
    nn.MultiheadAttention: _attention_pairs,
    nn.LSTM: _recurrent_pairs,
    nn.GRU: _recurrent_pairs,
}
