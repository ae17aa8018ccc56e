"""The bases of all factored layers: a linear layer and an embedding whose matrix is a Kronecker sum of parameters.

A subclass makes its parameters and returns them as Kronecker factors in `factors`. The rest is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...quant.tracing import tracing
from ...tensor.floats import dense
from ...tensor.recompute import recomputed
from ..checks import check_count, check_padding_idx
from .cost import check_impl
from .sums import check_input, kronecker_linear, kronecker_rows, kronecker_sum, plus_bias


class FactoredLinear(nn.Module):
    """``y = x W^T + bias`` with a W that is a sum of Kronecker products of parameters: the base of those layers.

    A subclass makes its parameters and gives `factors`; `weight` and `forward` follow from these.

    Shapes: input (*, in_features), output (*, out_features), any number of leading dimensions.

    Attributes:
        in_features, out_features: as in `torch.nn.Linear`.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`. It may be changed at any time.

    Raises:
        TypeError, ValueError: a size that is not a positive int, an unknown `impl`.

    >>> class Square(FactoredLinear):
    ...     def __init__(self, side):
    ...         super().__init__(side**2, side**2)
    ...         self.A, self.bias = nn.Parameter(torch.randn(1, side, side)), None
    ...
    ...     def factors(self):
    ...         return self.A, self.A
    >>> Square(3)(torch.randn(5, 9)).shape
    torch.Size([5, 9])
    """

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, impl: str = "auto") -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.out_features = check_count("out_features", out_features)
        self.impl = check_impl(impl)

    def _make_bias(self, bias: bool, factory: dict[str, Any]) -> None:
        self.register_parameter("bias", nn.Parameter(torch.empty(self.out_features, **factory)) if bias else None)

    def factors(self) -> Sequence[Tensor]:
        """The Kronecker factors of W, each (rank, rows, columns)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its factors are")

    def fit_(self, weight: Tensor) -> FactoredLinear:
        """Set the parameters so that W is as near as possible to `weight` (out_features, in_features); the bias stays.

        Returns:
            self.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be fitted to a matrix")

    @property
    def weight(self) -> Tensor:
        """The dense W (out_features, in_features), computed at each access."""
        return kronecker_sum(*self.factors())[: self.out_features, : self.in_features]

    def reset_parameters(self) -> None:
        """The bias as in `torch.nn.Linear`: uniform on +-1 / sqrt(in_features)."""
        if self.bias is not None:
            bound = self.in_features**-0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """(*, in_features) to (*, out_features)."""
        shape = (self.out_features, self.in_features)
        return kronecker_linear(input, self.factors(), self.bias, shape, self.impl)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


MakeLinear = Callable[[int, int], FactoredLinear]
"""(in_features, out_features) to a layer: how attention and recurrent layers make their parts."""


class FactoredEmbedding(nn.Module):
    """A table (num_embeddings, embedding_dim) that is a sum of Kronecker products; a lookup computes only its rows.

    Shapes: input (*) of integers, output (*, embedding_dim).

    Attributes:
        num_embeddings, embedding_dim, padding_idx: as in `torch.nn.Embedding`. The row at padding_idx is zero and
            gives no gradient, in `forward`, `weight` and `logits` alike.
        impl: how `logits` computes; see `lognet.nn.kronecker_linear`.

    Raises:
        TypeError, ValueError: a size that is not a positive int, an unknown `impl`, a padding_idx outside the table.

    >>> class Pairs(FactoredEmbedding):
    ...     def __init__(self):
    ...         super().__init__(num_embeddings=16, embedding_dim=9)
    ...         self.A = nn.Parameter(torch.randn(1, 4, 3))
    ...
    ...     def factors(self):
    ...         return self.A, self.A
    >>> Pairs()(torch.tensor([0, 15])).shape
    torch.Size([2, 9])
    """

    layer_norm = False

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, impl: str = "auto"
    ) -> None:
        super().__init__()
        self.num_embeddings = check_count("num_embeddings", num_embeddings)
        self.embedding_dim = check_count("embedding_dim", embedding_dim)
        self.padding_idx = check_padding_idx(padding_idx, num_embeddings)
        self.impl = check_impl(impl)

    def factors(self) -> Sequence[Tensor]:
        """The Kronecker factors of the table, each (rank, rows, columns)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its factors are")

    def fit_(self, weight: Tensor) -> FactoredEmbedding:
        """Set the parameters so that the table is as near as possible to `weight` (num_embeddings, embedding_dim).

        Returns:
            self.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be fitted to a matrix")

    @property
    def weight(self) -> Tensor:
        """The dense table (num_embeddings, embedding_dim), computed at each access."""
        if self.layer_norm:
            return self.forward(torch.arange(self.num_embeddings, device=self.factors()[0].device))
        table = kronecker_sum(*self.factors())[: self.num_embeddings, : self.embedding_dim]
        if self.padding_idx is None:
            return table
        return table.masked_fill(self._is_padding(table.device).unsqueeze(1), 0.0)

    def forward(self, input: Tensor) -> Tensor:
        """Rows of the table: integers (*) to (*, embedding_dim).

        Raises:
            TypeError: `input` is not an integer tensor.
            IndexError: an index outside 0 .. num_embeddings - 1.
        """
        check_index(input, self.num_embeddings)
        rows = kronecker_rows(input, self.factors(), self.embedding_dim, self.layer_norm)
        return mask_padding(rows, input, self.padding_idx)

    def logits(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """The table as a tied output layer: hidden states (*, embedding_dim) to scores (*, num_embeddings).

        Args:
            input: floating (*, embedding_dim).
            bias: (num_embeddings,) added to the scores, or None.
        """
        check_input(input, bias, (self.num_embeddings, self.embedding_dim))
        if self.layer_norm:  # rows are no longer linear in the factors: the table is built
            return recomputed(self._normed_logits, input, bias, *self.factors())
        scores = kronecker_linear(input, self.factors(), None, (self.num_embeddings, self.embedding_dim), self.impl)
        if self.padding_idx is not None:
            scores = scores.masked_fill(self._is_padding(scores.device), 0.0)
        return plus_bias(scores, None if bias is None else dense(bias))

    def _normed_logits(self, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
        all_rows = torch.arange(self.num_embeddings, device=x.device)
        table = kronecker_rows(all_rows, factors, self.embedding_dim, layer_norm=True)
        return nn.functional.linear(x, mask_padding(table, all_rows, self.padding_idx), bias)

    def _is_padding(self, device: torch.device) -> Tensor:
        return torch.arange(self.num_embeddings, device=device).eq(-1 if self.padding_idx is None else self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class TiedOutput(nn.Module):
    """The output layer whose weight is an embedding's table: (*, embedding_dim) to (*, num_embeddings).

    Args:
        embedding: any module with a method ``logits(input, bias)``: a factored embedding of this package. It is
            shared, not copied; its parameters are this module's too.
        bias: add a bias (num_embeddings,), zero at first. Default: False.

    >>> from lognet.nn import KroneckerEmbedding
    >>> embedding = KroneckerEmbedding(100, 16, rank=2)
    >>> TiedOutput(embedding)(torch.randn(3, 16)).shape
    torch.Size([3, 100])
    """

    bias: nn.Parameter | None

    def __init__(self, embedding: Any, bias: bool = False) -> None:
        super().__init__()
        self.embedding = embedding
        value = None
        if bias:
            like = next(embedding.parameters())
            value = nn.Parameter(torch.zeros(embedding.num_embeddings, device=like.device, dtype=like.dtype))
        self.register_parameter("bias", value)

    @property
    def weight(self) -> Tensor:
        """The dense table (num_embeddings, embedding_dim), computed at each access."""
        return self.embedding.weight

    def forward(self, input: Tensor) -> Tensor:
        """(*, embedding_dim) to (*, num_embeddings)."""
        return self.embedding.logits(input, self.bias)


def check_index(index: Tensor, num_embeddings: int) -> None:
    """Raise TypeError or IndexError unless `index` holds integers in 0 .. num_embeddings - 1."""
    if not isinstance(index, Tensor):
        raise TypeError(
            f"input must be an integer tensor of indices, got {type(index).__name__}; use torch.tensor(...)"
        )
    if index.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"input must be an integer tensor of indices, got {index.dtype}; use input.long()")
    if tracing() or index.is_meta or index.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(index))
    if low < 0 or high >= num_embeddings:
        wrong = low if low < 0 else high
        raise IndexError(f"index out of range: indices must lie in 0 .. {num_embeddings - 1}, got {wrong}")


def mask_padding(rows: Tensor, index: Tensor, padding_idx: int | None) -> Tensor:
    """The rows with zeros, which give no gradient, where the index is padding_idx."""
    return rows if padding_idx is None else rows.masked_fill((index == padding_idx).unsqueeze(-1), 0.0)
