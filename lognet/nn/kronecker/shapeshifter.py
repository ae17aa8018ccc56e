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


class _Terms(nn.Module):
    """What the four layers share: W has `rank` terms, made of two parameters with the names `pair`."""

    pair: tuple[str, str]
    rank: int

    def _make(
        self,
        first: tuple[int, ...],
        second: tuple[int, ...],
        bits: int | None,
        factory: dict[str, Any],
        bias: bool = False,
    ) -> None:
        for name, shape in zip(self.pair, (first, second), strict=True):
            self.register_parameter(name, nn.Parameter(torch.empty(shape, **factory)))
        if isinstance(self, FactoredLinear):
            self._make_bias(bias, factory)
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of both parameters, and of the bias of a linear layer."""
        std = self.rank**-0.25
        if isinstance(self, FactoredLinear):
            std = (2 / (self.in_features + self.out_features) / self.rank) ** 0.25
        for name in self.pair:
            nn.init.normal_(getattr(self, name), std=std)
        if isinstance(self, FactoredLinear):
            FactoredLinear.reset_parameters(self)

    @torch.no_grad()
    def fit_(self, weight: Tensor) -> Any:
        """Set both parameters so that W is as near as possible to `weight`, and return self."""
        for name, values in zip(self.pair, self._nearest(weight), strict=True):
            getattr(self, name).copy_(values)
        return self

    def _nearest(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class _KroneckerTerms(_Terms):
    pair = ("A", "B")
    A: nn.Parameter
    B: nn.Parameter

    def factors(self) -> Sequence[Tensor]:
        """A and B."""
        return self.A, self.B

    def _nearest(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return nearest_kronecker_sum(weight, (*self.A.shape[1:], *self.B.shape[1:]), self.rank)


class _LowRankTerms(_Terms):
    pair = ("U", "V")
    U: nn.Parameter
    V: nn.Parameter

    def factors(self) -> Sequence[Tensor]:
        """The columns of U, (rank, rows, 1), and the rows of V, (rank, 1, columns)."""
        return self.U.t().unsqueeze(2), self.V.unsqueeze(1)

    def _nearest(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return truncated_svd(weight.detach().double(), self.rank)


class KroneckerLinear(_KroneckerTerms, FactoredLinear):
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
        self._make((rank, a, b), (rank, c, d), bits, {"device": device, "dtype": dtype}, bias)


class LowRankLinear(_LowRankTerms, FactoredLinear):
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
        self._make((out_features, rank), (rank, in_features), bits, {"device": device, "dtype": dtype}, bias)


class KroneckerEmbedding(_KroneckerTerms, FactoredEmbedding):
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
        self._make((rank, a, b), (rank, c, d), bits, {"device": device, "dtype": dtype})


class LowRankEmbedding(_LowRankTerms, FactoredEmbedding):
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
        self._make((num_embeddings, rank), (rank, embedding_dim), bits, {"device": device, "dtype": dtype})

    def forward(self, input: Tensor) -> Tensor:
        """Rows of U V: only those of U that are looked up are read."""
        check_index(input, self.num_embeddings)
        rows = torch.matmul(nn.functional.embedding(input, self.U), self.V)
        return mask_padding(rows, input, self.padding_idx)
