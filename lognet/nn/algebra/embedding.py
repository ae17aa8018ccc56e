"""Embeddings whose vectors are read as tuples of an algebra."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..parameters import check_bits, quantize_parameters_
from .algebras import Algebra, tuples_in


class AlgebraEmbedding(nn.Embedding):
    """A table of embeddings of whole tuples: `torch.nn.Embedding`, whose vectors an algebra's layers take as they are.

    Args:
        num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, device, dtype: as
            in torch.nn; `embedding_dim` counts real scalars and is a multiple of A.
        algebra: name or `Algebra`.
        bits: None for a float table, or B: a LogTensor as `lognet.wrap` makes it, whose padding row stays exactly zero.

    Shape: (*) of indices to (*, embedding_dim).

    Raises:
        ValueError: `embedding_dim` is not a multiple of A; `sparse` with `bits`.

    Source: AlgebraNets, section 4.3 ("each character [has] a d/4-sized M2(R) embedding which can be thought of as a
    reshaped R^d embedding").

    >>> import torch
    >>> AlgebraEmbedding(10, 8, algebra="H")(torch.tensor([[1, 2]])).shape
    torch.Size([1, 2, 8])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
    ) -> None:
        algebra = Algebra.of(algebra)
        tuples_in(embedding_dim, algebra, "embedding_dim")
        if bits is not None and sparse:
            raise ValueError(f"sparse=True is not supported with bits={bits}: LogTensors have dense gradients")
        super().__init__(
            *(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse),
            device=device,
            dtype=dtype,
        )
        self.algebra, self.bits = algebra, check_bits(bits)
        quantize_parameters_(self, bits)

    def extra_repr(self) -> str:
        return super().extra_repr() + f", algebra={self.algebra}" + ("" if self.bits is None else f", bits={self.bits}")
