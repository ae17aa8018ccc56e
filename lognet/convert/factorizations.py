"""The rules that `lognet.compress` takes: which factored layer replaces a torch layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from ..nn.kronecker.attention import KroneckerMultiheadAttention, PHMMultiheadAttention
from ..nn.kronecker.phm import PHMLinear, Rule
from ..nn.kronecker.recurrent import PHMGRU, PHMLSTM, KroneckerGRU, KroneckerLSTM
from ..nn.kronecker.shapeshifter import KroneckerEmbedding, KroneckerLinear, LowRankEmbedding, LowRankLinear
from ..nn.kronecker.word2ket import Word2KetXSEmbedding
from .patterns import ARGUMENTS, biases_of


class Factorization(Protocol):
    """A rule of `compress`."""

    def replacement(self, layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
        """A new layer for a torch layer, or None if the rule has none for its class. `options` are device and dtype."""


@dataclass(frozen=True)
class Kronecker:
    """Sums of `rank` Kronecker products for Linear, Embedding, MultiheadAttention, LSTM and GRU layers (Shapeshifter).

    Args:
        rank: number of terms, at least 1.
        sizes: "auto", "divisors" or "padded"; see `lognet.nn.factor_shapes`.

    >>> import lognet
    >>> model, report = lognet.compress(nn.Sequential(nn.Linear(64, 64)), {nn.Linear: Kronecker(rank=2)})
    >>> model[0].weight.shape, sum(p.numel() for p in model.parameters())  # two terms of 8 x 8 times 8 x 8, and the bias
    (torch.Size([64, 64]), 320)
    """

    rank: int
    sizes: str = "auto"

    def replacement(self, layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
        """See `Factorization.replacement`."""
        return _made(layer, _KRONECKER, (self.rank,), {"sizes": self.sizes, **options})


@dataclass(frozen=True)
class PHM:
    """PHM layers of dimension `n` for Linear, MultiheadAttention, LSTM and GRU layers whose sizes n divides.

    Args:
        n: at least 1; a layer of dimension n has about 1/n of the parameters.
        rule: as in `PHMLinear`: None, "hamilton" or a tensor. All layers share a rule that is an `nn.Parameter`.
        fused: as in `PHMMultiheadAttention` and `PHMLSTM`: one PHM for all projections of an input, or all gates.

    >>> import lognet
    >>> model, report = lognet.compress(nn.Sequential(nn.Linear(64, 64)), {nn.Linear: PHM(n=4)})
    >>> sum(p.numel() for p in model.parameters())  # 64 * 64 / 4, the rule of 4^3, and the bias
    1152
    """

    n: int
    rule: Rule = field(default=None, repr=False, compare=False)
    fused: bool = False

    def replacement(self, layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
        """See `Factorization.replacement`."""
        fused = {} if isinstance(layer, nn.Linear) else {"fused": self.fused}
        return _made(layer, _PHM, (self.n,), {"rule": self.rule, **fused, **options})


@dataclass(frozen=True)
class LowRank:
    """Products of two matrices of rank `rank` for Linear and Embedding layers: the baseline.

    Args:
        rank: inner width of the product, at least 1.

    >>> import lognet
    >>> model, report = lognet.compress(nn.Sequential(nn.Linear(64, 64)), {nn.Linear: LowRank(rank=2)})
    >>> sum(p.numel() for p in model.parameters())  # 2 (64 + 64), and the bias
    320
    """

    rank: int

    def replacement(self, layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
        """See `Factorization.replacement`."""
        return _made(layer, _LOW_RANK, (self.rank,), options)


@dataclass(frozen=True)
class Word2KetXS:
    """word2ketXS for Embedding layers.

    Args:
        order: number of factors of each term, at least 2.
        rank: number of terms, at least 1.

    >>> import lognet
    >>> model, report = lognet.compress(nn.Sequential(nn.Embedding(10_000, 64)), {nn.Embedding: Word2KetXS(2, 1)})
    >>> sum(p.numel() for p in model.parameters())  # two factors of 100 x 8
    1600
    """

    order: int
    rank: int

    def replacement(self, layer: nn.Module, options: dict[str, Any]) -> nn.Module | None:
        """See `Factorization.replacement`."""
        return _made(layer, {nn.Embedding: Word2KetXSEmbedding}, (self.order, self.rank), options)


Kinds = dict[type[nn.Module], Callable[..., nn.Module]]

_KRONECKER: Kinds = {
    nn.Linear: KroneckerLinear,
    nn.Embedding: KroneckerEmbedding,
    nn.MultiheadAttention: KroneckerMultiheadAttention,
    nn.LSTM: KroneckerLSTM,
    nn.GRU: KroneckerGRU,
}
_PHM: Kinds = {nn.Linear: PHMLinear, nn.MultiheadAttention: PHMMultiheadAttention, nn.LSTM: PHMLSTM, nn.GRU: PHMGRU}
_LOW_RANK: Kinds = {nn.Linear: LowRankLinear, nn.Embedding: LowRankEmbedding}


def _made(layer: nn.Module, kinds: Kinds, numbers: tuple[int, ...], options: dict[str, Any]) -> nn.Module | None:
    """The layer in `kinds` for the class of a torch layer, with the numbers of a rule after its two sizes."""
    kind = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if kind is None:
        return None
    first, second, *same = ARGUMENTS[kind]
    taken = {name: getattr(layer, name) for name in same} | biases_of(layer)
    return kinds[kind](getattr(layer, first), getattr(layer, second), *numbers, **taken, **options)
