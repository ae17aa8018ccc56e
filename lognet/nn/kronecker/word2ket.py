"""word2ket and word2ketXS: embeddings as sums of tensor products, word by word or the whole table at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tensor.recompute import recomputed
from ..checks import check_count, check_padding_idx
from ..parameters import quantize_parameters_
from .cost import check_impl
from .factored import FactoredEmbedding, check_index, mask_padding
from .sizes import integer_root
from .sums import check_input, nearest_kronecker_sum, tensor_product_tree


class Word2KetEmbedding(nn.Module):
    """An embedding whose every row is ``v = sum_k v_1k (x) v_2k (x) ...``: rank * order * q numbers a word.

    Args:
        num_embeddings, embedding_dim, padding_idx, device, dtype: d, p and padding_idx as in `torch.nn.Embedding`.
        order: n, the number of factors. At least 2, since order 1 is an ordinary table.
        rank: r, the number of terms.
        layer_norm: normalise every node of the product tree, as the paper does against steep gradients. The rows
            are then no longer multilinear in the factors, and `inner` and `logits` expand them. Default: False, as
            in the authors' released code.
        bits: None for a float parameter, or the width of a LogTensor parameter.

    Attributes:
        v: (num_embeddings, rank * order * q), q the least integer with q^order >= embedding_dim. Normal, of variance
            rank^(-1 / order), so that rows have variance 1 as in `torch.nn.Embedding`.

    Shapes: integers (*) to (*, embedding_dim); only the words looked up are read. The row at padding_idx is zero
    and gives no gradient.

    Raises:
        TypeError, ValueError: a size, order or rank that is not a positive int; a padding_idx outside the table.
        IndexError: when called with an index outside it.

    Source: word2ket; thesis, section 3.3.3, equation 3.3.

    >>> embedding = Word2KetEmbedding(1000, 256, order=4, rank=5)
    >>> embedding.v.shape[1], embedding(torch.tensor([[1, 2]])).shape
    (80, torch.Size([1, 2, 256]))
    """

    v: nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        order: int,
        rank: int,
        padding_idx: int | None = None,
        *,
        layer_norm: bool = False,
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = check_count("num_embeddings", num_embeddings)
        self.embedding_dim = check_count("embedding_dim", embedding_dim)
        self.order, self.rank = check_count("order", order, least=2), check_count("rank", rank)
        self.q = integer_root(embedding_dim, order)
        self.padding_idx = check_padding_idx(padding_idx, num_embeddings)
        self.layer_norm = layer_norm
        self.v = nn.Parameter(torch.empty(num_embeddings, rank * order * self.q, device=device, dtype=dtype))
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of v."""
        nn.init.normal_(self.v, std=self.rank ** (-0.5 / self.order))

    def kets(self, input: Tensor) -> Tensor:
        """The factors of words: integers (*) to (*, rank, order, q)."""
        check_index(input, self.num_embeddings)
        kets = mask_padding(F.embedding(input, self.v), input, self.padding_idx)
        return kets.view(*input.shape, self.rank, self.order, self.q)

    def forward(self, input: Tensor) -> Tensor:
        rows = tensor_product_tree(self.kets(input).unbind(-2), self.layer_norm)
        return rows[..., : self.embedding_dim]

    def inner(self, first: Tensor, second: Tensor) -> Tensor:
        """Inner products of words without expanding them: sum_{k, k'} prod_j <v_jk, w_jk'>.

        Args:
            first, second: integers (*), broadcast against each other.

        Returns:
            (*). Where q^order > embedding_dim, the products of the rows before they are cropped; exact otherwise.

        Source: thesis, section 3.3.3.

        >>> embedding, i, j = Word2KetEmbedding(9, 16, order=2, rank=3), torch.tensor(4), torch.tensor(7)
        >>> torch.allclose(embedding.inner(i, j), embedding(i) @ embedding(j), rtol=1e-3, atol=1e-4)
        True
        """
        if self.layer_norm:
            return (self(first) * self(second)).sum(-1)
        v, w = self.kets(first).movedim(-2, -3), self.kets(second).movedim(-2, -3)  # (*, order, rank, q)
        return torch.matmul(v, w.mT).prod(-3).sum((-1, -2))

    @property
    def weight(self) -> Tensor:
        """The dense table (num_embeddings, embedding_dim), computed at each access."""
        return self(torch.arange(self.num_embeddings, device=self.v.device))

    def logits(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """The table as a tied output layer: (*, embedding_dim) to (*, num_embeddings). It builds the table."""
        check_input(input, bias, (self.num_embeddings, self.embedding_dim))
        all_words = torch.arange(self.num_embeddings, device=self.v.device)
        return recomputed(partial(self._logits, all_words), input, bias, self.v)

    def _logits(self, index: Tensor, x: Tensor, bias: Tensor | None, v: Tensor) -> Tensor:
        kets = mask_padding(v, index, self.padding_idx).view(-1, self.rank, self.order, self.q)
        rows = tensor_product_tree(kets.unbind(-2), self.layer_norm)
        return F.linear(x, rows[:, : self.embedding_dim], bias)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}, order={self.order}, rank={self.rank}{padding}"


class Word2KetXSEmbedding(FactoredEmbedding):
    """An embedding whose whole table is ``sum_k F_1k (x) F_2k (x) ...``: rank * order * t * q numbers in all.

    Args:
        num_embeddings, embedding_dim, padding_idx, device, dtype: d, p and padding_idx as in `torch.nn.Embedding`.
        order: n, the number of factors, at least 2.
        rank: r, the number of terms.
        layer_norm: normalise every node of the product tree, as the paper does. Rows are then no longer multilinear
            in the factors, and `logits` builds the table. Default: False, as in the authors' released code.
        impl: how `logits`, the tied output layer, computes; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, or the width of LogTensor parameters.

    Attributes:
        F1, F2, ...: (rank, t, q) each; t and q are the least integers with t^order >= num_embeddings and
            q^order >= embedding_dim. Normal, of variance rank^(-1 / order), so that the table has variance 1.

    Shapes: integers (*) to (*, embedding_dim). Row i is computed from the rows of the factors at the digits of i in
    base t; time and memory do not depend on num_embeddings.

    Raises:
        TypeError, ValueError: a size, order or rank that is not a positive int; a padding_idx outside the table.
        IndexError: when called with an index outside it.

    Source: word2ketXS; thesis, section 3.4.2, equation 3.4.

    >>> embedding = Word2KetXSEmbedding(118655, 300, order=4, rank=1)
    >>> sum(p.numel() for p in embedding.parameters()), embedding(torch.tensor([118654])).shape
    (380, torch.Size([1, 300]))
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        order: int,
        rank: int,
        padding_idx: int | None = None,
        *,
        layer_norm: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, check_impl(impl))
        self.order, self.rank = check_count("order", order, least=2), check_count("rank", rank)
        self.layer_norm = layer_norm
        t, q = integer_root(num_embeddings, order), integer_root(embedding_dim, order)
        for j in range(order):
            setattr(self, f"F{j + 1}", nn.Parameter(torch.empty(rank, t, q, device=device, dtype=dtype)))
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of the factors."""
        for factor in self.factors():
            nn.init.normal_(factor, std=self.rank ** (-0.5 / self.order))

    def factors(self) -> Sequence[Tensor]:
        return [getattr(self, f"F{j + 1}") for j in range(self.order)]

    def fit_(self, weight: Tensor) -> Word2KetXSEmbedding:
        """The nearest sum of `rank` Kronecker products to `weight`, for order 2.

        Raises:
            ValueError: a higher order, for which no truncated SVD gives the nearest sum; or layer_norm.
        """
        if self.order != 2 or self.layer_norm:
            raise ValueError(
                f"fit_ needs order=2 and layer_norm=False, got order={self.order} and layer_norm={self.layer_norm}"
            )
        first, second = self.factors()
        a, b = nearest_kronecker_sum(weight, (*first.shape[1:], *second.shape[1:]), self.rank)
        with torch.no_grad():
            first.copy_(a)
            second.copy_(b)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, order={self.order}, rank={self.rank}"
