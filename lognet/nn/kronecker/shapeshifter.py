"""Shapeshifter layers, W = sum_r A_r (x) B_r with factors of about the square roots of W's sides, and plain low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_count
from ..parameters import quantize_parameters_
from .factored import FactoredEmbedding, FactoredLinear, check_index, mask_padding
from .sizes import factor_shapes
from .sums import nearest_kronecker_sum, truncated_svd


class KroneckerLinear(FactoredLinear):
    """A linear layer ``y = x W^T + bias`` with W = sum_r A_r (x) B_r.

    Args:
        in_features, out_features: any sizes.
        rank: number of terms. rank = min(ab, cd) can represent any W.
        bias: as in `torch.nn.Linear`.
        sizes: "auto", "divisors" or "padded", how the sides are split; see `lognet.nn.factor_shapes`. "padded" is
            the paper's way for sides that are not squares.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, or the width of LogTensor parameters.
        device, dtype: as in `torch.nn.Linear`.

    Attributes:
        A, B: (rank, a, b) and (rank, c, d) with ac >= out_features and bd >= in_features. Normal, each of variance
            sqrt(v / rank), so that W has Glorot's variance v = 2 / (in_features + out_features).
        bias: (out_features,) or None.

    Shapes: (*, in_features) to (*, out_features).

    Raises:
        TypeError, ValueError: a size or rank that is not a positive int, an unknown `sizes` or `impl`.

    Source: "Shapeshifter", section 4.3: about 2 rank sqrt(in_features out_features) parameters. The initialisation
    is ours, the paper gives none.

    >>> layer = KroneckerLinear(512, 2048, rank=16, bias=False)
    >>> sum(p.numel() for p in layer.parameters()), tuple(layer.A.shape), tuple(layer.B.shape)
    (32768, (16, 32, 32), (16, 64, 16))
    """

    A: nn.Parameter
    B: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        *,
        sizes: str = "auto",
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, impl)
        self.rank = check_count("rank", rank)
        a, b, c, d = factor_shapes(out_features, in_features, sizes)
        factory = {"device": device, "dtype": dtype}
        self.A = nn.Parameter(torch.empty(rank, a, b, **factory))
        self.B = nn.Parameter(torch.empty(rank, c, d, **factory))
        self._make_bias(bias, factory)
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of A, B and the bias."""
        variance = 2 / (self.in_features + self.out_features)
        for factor in (self.A, self.B):
            nn.init.normal_(factor, std=(variance / self.rank) ** 0.25)
        super().reset_parameters()

    def factors(self) -> Sequence[Tensor]:
        """A and B."""
        return self.A, self.B

    def fit_(self, weight: Tensor) -> KroneckerLinear:
        """Set A and B to the nearest sum of `rank` Kronecker products to `weight`."""
        _fit_two(self.A, self.B, weight)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class LowRankLinear(FactoredLinear):
    """A linear layer ``y = x (U V)^T + bias`` of rank r: the baseline of the factored layers.

    U (out_features, rank) and V (rank, in_features): rank * (in_features + out_features) parameters. It is a
    Kronecker sum too, of columns and rows, and runs through the same core.

    Args:
        rank: r, at least 1.
        in_features, out_features, bias, impl, bits, device, dtype: as in `KroneckerLinear`, whose variance U V has.

    Shapes: (*, in_features) to (*, out_features).

    Raises:
        TypeError, ValueError: as `KroneckerLinear`.

    Source: thesis, section 4.2.

    >>> layer = LowRankLinear(512, 2048, rank=16, bias=False)
    >>> sum(p.numel() for p in layer.parameters()), layer(torch.randn(3, 512)).shape
    (40960, torch.Size([3, 2048]))
    """

    U: nn.Parameter
    V: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        *,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, impl)
        self.rank = check_count("rank", rank)
        factory = {"device": device, "dtype": dtype}
        self.U = nn.Parameter(torch.empty(out_features, rank, **factory))
        self.V = nn.Parameter(torch.empty(rank, in_features, **factory))
        self._make_bias(bias, factory)
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of U, V and the bias."""
        variance = 2 / (self.in_features + self.out_features)
        for factor in (self.U, self.V):
            nn.init.normal_(factor, std=(variance / self.rank) ** 0.25)
        super().reset_parameters()

    def factors(self) -> Sequence[Tensor]:
        """The columns of U, (rank, out_features, 1), and the rows of V, (rank, 1, in_features)."""
        return self.U.t().unsqueeze(2), self.V.unsqueeze(1)

    def fit_(self, weight: Tensor) -> LowRankLinear:
        """Set U and V to the nearest matrix of rank r to `weight`, by its truncated SVD."""
        _fit_low_rank(self.U, self.V, weight)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class KroneckerEmbedding(FactoredEmbedding):
    """An embedding whose table is W = sum_r A_r (x) B_r; a lookup computes rows of W and never builds the table.

    A lookup of N words gathers N * rank * (b + d) numbers: at a rank of hundreds, feed long texts in pieces.

    Args:
        num_embeddings, embedding_dim, padding_idx, device, dtype: as in `torch.nn.Embedding`.
        rank, sizes, bits: as in `KroneckerLinear`.
        impl: how `logits`, the tied output layer, computes.

    Attributes:
        A, B: (rank, a, b) and (rank, c, d) with ac >= num_embeddings and bd >= embedding_dim. Normal, each of
            variance 1 / sqrt(rank), so that W has variance 1 as in `torch.nn.Embedding`.

    Shapes: integers (*) to (*, embedding_dim); `logits`: (*, embedding_dim) to (*, num_embeddings).

    Raises:
        TypeError, ValueError: as `KroneckerLinear`; a padding_idx outside the table.
        IndexError: when called with an index outside it.

    Source: "Shapeshifter", section 4.3.

    >>> embedding = KroneckerEmbedding(32128, 512, rank=4)
    >>> sum(p.numel() for p in embedding.parameters()), embedding(torch.tensor([[5, 7]])).shape
    (32448, torch.Size([1, 2, 512]))
    """

    A: nn.Parameter
    B: nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        rank: int,
        padding_idx: int | None = None,
        *,
        sizes: str = "auto",
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, impl)
        self.rank = check_count("rank", rank)
        a, b, c, d = factor_shapes(num_embeddings, embedding_dim, sizes)
        self.A = nn.Parameter(torch.empty(rank, a, b, device=device, dtype=dtype))
        self.B = nn.Parameter(torch.empty(rank, c, d, device=device, dtype=dtype))
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of A and B."""
        for factor in (self.A, self.B):
            nn.init.normal_(factor, std=self.rank**-0.25)

    def factors(self) -> Sequence[Tensor]:
        """A and B."""
        return self.A, self.B

    def fit_(self, weight: Tensor) -> KroneckerEmbedding:
        """Set A and B to the nearest sum of `rank` Kronecker products to `weight`."""
        _fit_two(self.A, self.B, weight)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class LowRankEmbedding(FactoredEmbedding):
    """An embedding whose table is U V of rank r: the baseline of the factored embeddings.

    U (num_embeddings, rank) and V (rank, embedding_dim).

    Args:
        num_embeddings, embedding_dim, rank, padding_idx, impl, bits, device, dtype: as in `KroneckerEmbedding`.

    Shapes: as in `KroneckerEmbedding`.

    Raises:
        TypeError, ValueError, IndexError: as `KroneckerEmbedding`.

    >>> embedding = LowRankEmbedding(1000, 64, rank=4)
    >>> sum(p.numel() for p in embedding.parameters()), embedding(torch.tensor([5, 7])).shape
    (4256, torch.Size([2, 64]))
    """

    U: nn.Parameter
    V: nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        rank: int,
        padding_idx: int | None = None,
        *,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, impl)
        self.rank = check_count("rank", rank)
        self.U = nn.Parameter(torch.empty(num_embeddings, rank, device=device, dtype=dtype))
        self.V = nn.Parameter(torch.empty(rank, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of U and V."""
        for factor in (self.U, self.V):
            nn.init.normal_(factor, std=self.rank**-0.25)

    def factors(self) -> Sequence[Tensor]:
        """The columns of U and the rows of V, as for `LowRankLinear`."""
        return self.U.t().unsqueeze(2), self.V.unsqueeze(1)

    def forward(self, input: Tensor) -> Tensor:
        """Rows of U V: only those of U that are looked up are read."""
        check_index(input, self.num_embeddings)
        rows = torch.matmul(nn.functional.embedding(input, self.U), self.V)
        return mask_padding(rows, input, self.padding_idx)

    def fit_(self, weight: Tensor) -> LowRankEmbedding:
        """Set U and V to the nearest matrix of rank r to `weight`, by its truncated SVD."""
        _fit_low_rank(self.U, self.V, weight)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


@torch.no_grad()
def _fit_two(a: Tensor, b: Tensor, weight: Tensor) -> None:
    rank = a.shape[0]
    new_a, new_b = nearest_kronecker_sum(weight, (*a.shape[1:], *b.shape[1:]), rank)
    a.copy_(new_a)
    b.copy_(new_b)


@torch.no_grad()
def _fit_low_rank(u: Tensor, v: Tensor, weight: Tensor) -> None:
    new_u, new_v = truncated_svd(weight.detach().double(), v.shape[0])
    u.copy_(new_u)
    v.copy_(new_v)
