"""Counting the work of a forward pass, as the paper counts it: real multiply-adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.algebra.attention import AlgebraMultiheadAttention
from ..nn.algebra.conv import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from ..nn.algebra.linear import AlgebraLinear
from ..nn.algebra.norm import AlgebraWhitening
from ..nn.algebra.recurrent import AlgebraGRU, AlgebraGRUCell, AlgebraLSTM, AlgebraLSTMCell
from ..nn.kronecker.attention import FactoredMultiheadAttention
from ..nn.kronecker.factored import FactoredEmbedding, FactoredLinear, TiedOutput
from ..nn.kronecker.phm import PHMConv1d, PHMConv2d
from ..nn.kronecker.recurrent import FactoredRNN
from ..nn.kronecker.sums import multiply_adds

_ATTENTION = (nn.MultiheadAttention, AlgebraMultiheadAttention)


@dataclass
class Flops:
    """The multiply-adds of a forward pass.

    Attributes:
        total: all of them.
        by_module: of each counted module, by name; several calls of one add up.

    >>> print(flops(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), torch.ones(1, 8)))
                  32  0
                   8  1
                  40  in all
    """

    total: int = 0
    by_module: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{count:>16,}  {name}" for name, count in self.by_module.items()]
        return "\n".join([*lines, f"{self.total:>16,}  in all"])


def flops(model: nn.Module, *inputs: Any, **options: Any) -> Flops:
    """Run a model and count the real multiply-adds of its layers, which is what the paper calls FLOPs.

    Linear layers, convolutions, recurrent layers and cells, attention (with its scores and averages) and whitening, of
    torch.nn and of lognet.nn, are counted. Elementwise work, norms that fold into a neighbour, biases and embeddings are
    not. A layer over an algebra takes `Algebra.multiplies` for each product of tuples. A factored layer takes the
    multiply-adds of the form that its cost model chooses for the number of inputs, with the building of a matrix. The
    count is for the whole batch: use a batch of one for the paper's numbers.

    Args:
        model: any module. It runs once, in evaluation, without gradients; its modes are restored.
        inputs, options: what it is called with.

    Returns:
        A `Flops`.

    Source: AlgebraNets, Table 1, Figure 1 ("floating-point operations (multiply-adds) required at inference").

    >>> real, m2r = nn.Linear(64, 64), AlgebraLinear(64, 64, algebra="M2R")
    >>> flops(real, torch.ones(1, 64)).total, flops(m2r, torch.ones(1, 64)).total
    (4096, 2048)
    """
    counted = Flops()
    handles, inside = [], set()
    for name, module in model.named_modules():
        count = next((count for kind, count in _COUNTERS.items() if isinstance(module, kind)), None)
        if isinstance(module, _ATTENTION):
            inside |= {id(child) for child in module.modules() if child is not module}
        if count is not None and id(module) not in inside:
            handles.append(module.register_forward_hook(_hook(counted, name or "(the model)", count), with_kwargs=True))
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(*inputs, **options)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    counted.total = sum(counted.by_module.values())
    return counted


Counter = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], int]


def _hook(counted: Flops, name: str, count: Counter) -> Callable[..., None]:
    def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        counted.by_module[name] = counted.by_module.get(name, 0) + count(module, args, kwargs, output)

    return add


def _products(weight: Tensor, module: nn.Module) -> int:
    """Multiply-adds of one use of every weight: `multiplies` for each tuple, or one for each number."""
    algebra = getattr(module, "algebra", None)
    return weight.numel() if algebra is None else weight.numel() // algebra.size * algebra.multiplies


def _linear(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    return _products(module.weight, module) * (output.numel() // output.shape[-1])


def _conv(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    return _products(module.weight, module) * (output.numel() // module.out_channels)


def _conv_transposed(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    return _products(module.weight, module) * (_first(args, kwargs).numel() // module.in_channels)


def _recurrent(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    weights = [p for name, p in module.named_parameters() if name.startswith("weight")]
    return sum(_products(w, module) for w in weights) * _inputs(args, kwargs)


def _attention(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    names = ("query", "key", "value")
    query, key, value = (args[i] if i < len(args) else kwargs[name] for i, name in enumerate(names))
    tokens = lambda x: x.numel() // x.shape[-1]
    if isinstance(module, AlgebraMultiheadAttention):
        weights = [_products(p.weight, p) for p in (module.q_proj, module.k_proj, module.v_proj, module.out_proj)]
    else:
        e = module.embed_dim
        weights = [e * e, e * module.kdim, e * module.vdim, e * e]
    projections = sum(w * tokens(x) for w, x in zip(weights, (query, key, value, query), strict=True))
    return projections + _factored_attention(module, args, kwargs, output)


def _whitening(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    """Whitening and Gamma, which fold into one A x A matrix for each tuple at inference."""
    return output.numel() * module.algebra.size


# Factored layers: the multiply-adds of the form that the cost model chooses, with the building of a matrix.


def _factored_linear(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    return _factored(module, output.numel() // module.out_features, module.impl)


def _factored(linear: Any, inputs: int, impl: str) -> int:
    if getattr(linear, "A", True) is None:  # PHM of n = 1: a linear layer
        return inputs * linear.S.numel()
    return multiply_adds(linear.factors(), inputs, impl)


def _tied_output(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    table = module.embedding
    inputs = output.numel() // table.num_embeddings
    if isinstance(table, FactoredEmbedding) and not table.layer_norm:
        return multiply_adds(table.factors(), inputs, table.impl)
    return inputs * table.num_embeddings * table.embedding_dim


def _factored_rnn(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    linears = [layer for layer in module.modules() if isinstance(layer, FactoredLinear)]
    return sum(_factored(layer, _inputs(args, kwargs), module.impl) for layer in linears)


def _factored_attention(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    """Scores and averages; the projections are modules that count themselves."""
    query, key = (args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key")))
    batch = 1 if query.dim() == 2 else query.shape[0 if module.batch_first else 1]
    return 2 * (query.numel() // query.shape[-1]) * (key.numel() // key.shape[-1] // batch) * module.embed_dim


def _phm_conv(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    kernel = module.S.numel() * module.n  # entries of the kernel, each a sum of n products
    return kernel * (output.numel() // module.out_channels) + (0 if module.A is None else kernel * module.n)


_COUNTERS: dict[Any, Counter] = {
    (nn.Linear, AlgebraLinear): _linear,
    TRANSPOSED_CONVOLUTIONS: _conv_transposed,
    CONVOLUTIONS: _conv,
    (nn.GRU, nn.LSTM, nn.RNN, AlgebraGRU, AlgebraLSTM): _recurrent,
    (nn.GRUCell, nn.LSTMCell, nn.RNNCell, AlgebraGRUCell, AlgebraLSTMCell): _recurrent,
    _ATTENTION: _attention,
    AlgebraWhitening: _whitening,
    FactoredLinear: _factored_linear,
    TiedOutput: _tied_output,
    FactoredRNN: _factored_rnn,
    FactoredMultiheadAttention: _factored_attention,
    (PHMConv1d, PHMConv2d): _phm_conv,
}


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The number of vectors in the input of a recurrent layer."""
    x = _first(args, kwargs)
    x = x.data if isinstance(x, nn.utils.rnn.PackedSequence) else x
    return x.numel() // x.shape[-1]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["input"]
