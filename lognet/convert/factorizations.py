"""The rules that `lognet.compress` takes: which factored layer replaces a torch layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from ..nn.kronecker.attention import KroneckerMultiheadAttention, PHMMultiheadAttention
from ..nn.kronecker.phm import PHMLinear, Rule
from ..nn.kronecker.recurrent import PHMGRU, PHMLSTM, KroneckerGRU, KroneckerLSTM
from ..nn.kronecker.shapeshifter import KroneckerEmbedding, KroneckerLinear, LowRankEmbedding, LowRankLinear
from ..nn.kronecker.word2ket import Word2KetXSEmbedding


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
        more: dict[str, Any] = {"sizes": self.sizes, **options}
        if isinstance(layer, nn.Linear):
            return KroneckerLinear(layer.in_features, layer.out_features, self.rank, layer.bias is not None, **more)
        if isinstance(layer, nn.Embedding):
            return KroneckerEmbedding(layer.num_embeddings, layer.embedding_dim, self.rank, layer.padding_idx, **more)
        if isinstance(layer, nn.MultiheadAttention):
            return KroneckerMultiheadAttention(layer.embed_dim, layer.num_heads, self.rank, **_of(layer), **more)
        if isinstance(layer, nn.LSTM):
            return KroneckerLSTM(layer.input_size, layer.hidden_size, self.rank, **_of(layer), **more)
        if isinstance(layer, nn.GRU):
            return KroneckerGRU(layer.input_size, layer.hidden_size, self.rank, **_of(layer), **more)
        return None


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
        options = {"rule": self.rule, **options}
        if isinstance(layer, nn.Linear):
            return PHMLinear(layer.in_features, layer.out_features, self.n, layer.bias is not None, **options)
        options["fused"] = self.fused
        if isinstance(layer, nn.MultiheadAttention):
            return PHMMultiheadAttention(layer.embed_dim, layer.num_heads, self.n, **_of(layer), **options)
        if isinstance(layer, nn.LSTM):
            return PHMLSTM(layer.input_size, layer.hidden_size, self.n, **_of(layer), **options)
        if isinstance(layer, nn.GRU):
            return PHMGRU(layer.input_size, layer.hidden_size, self.n, **_of(layer), **options)
        return None


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
        if isinstance(layer, nn.Linear):
            return LowRankLinear(layer.in_features, layer.out_features, self.rank, layer.bias is not None, **options)
        if isinstance(layer, nn.Embedding):
            return LowRankEmbedding(layer.num_embeddings, layer.embedding_dim, self.rank, layer.padding_idx, **options)
        return None


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
        if isinstance(layer, nn.Embedding):
            sizes = (layer.num_embeddings, layer.embedding_dim, self.order, self.rank)
            return Word2KetXSEmbedding(*sizes, padding_idx=layer.padding_idx, **options)
        return None


def _of(layer: nn.MultiheadAttention | nn.LSTM | nn.GRU) -> dict[str, Any]:
    """The arguments that the replacement takes over."""
    if isinstance(layer, (nn.LSTM, nn.GRU)):
        recurrent = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
        return {name: getattr(layer, name) for name in recurrent}
    same = {name: getattr(layer, name) for name in ("dropout", "add_zero_attn", "kdim", "vdim", "batch_first")}
    return {"bias": layer.in_proj_bias is not None, "add_bias_kv": layer.bias_k is not None, **same}
