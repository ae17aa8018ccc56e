"""Multi-head attention over an algebra: projections over the algebra around real scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..attention import MultiheadAttentionBase
from ..checks import nearest_divisors
from ..parameters import check_bits, quantize_parameters_
from .algebras import Algebra, tuples_in
from .linear import AlgebraLinear


class AlgebraMultiheadAttention(MultiheadAttentionBase):
    """Attention whose four projections are products of an algebra, and whose scores are real numbers.

    The score of a query and a key is the real dot product of their flattened tuples, <F(k), F(q)>. The attention map
    therefore costs as much as a real one.

    Args:
        embed_dim: real scalars, a multiple of num_heads * A, because a head holds whole tuples.
        num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype: as in
            `torch.nn.MultiheadAttention`. The key and the value that `add_bias_kv` learns are `bias_k` and `bias_v`.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B for LogTensors.

    Shape: query (L, N, embed_dim), (N, L, embed_dim) if `batch_first`, or (L, embed_dim); key and value likewise with
    kdim and vdim features. Returns the output, shaped as the query, and the weights: (N, L, S) averaged over heads,
    (N, num_heads, L, S), or None. Masks and options of the call are those of torch.

    Raises:
        ValueError: a width that is not a multiple of A, heads of broken tuples, inputs or masks of other shapes.
        TypeError: inputs of another dtype than the parameters, outside autocast; a mask of integers.

    Source: AlgebraNets, section 4.3.

    >>> import torch
    >>> attention = AlgebraMultiheadAttention(16, 2, batch_first=True, algebra="M2R")
    >>> x = torch.ones(3, 5, 16)
    >>> out, weights = attention(x, x, x)
    >>> out.shape, weights.shape
    (torch.Size([3, 5, 16]), torch.Size([3, 5, 5]))
    """

    out_proj: AlgebraLinear

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
    ) -> None:
        super().__init__(embed_dim, num_heads, dropout, add_zero_attn, kdim, vdim, batch_first)
        self.algebra, self.bits = Algebra.of(algebra), check_bits(bits)
        tuples = tuples_in(embed_dim, self.algebra, "embed_dim")
        if tuples % num_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide the {tuples} tuples of embed_dim={embed_dim} (algebra {self.algebra},"
                f" tuples of {self.algebra.size}): a head holds whole tuples. For this width use"
                f" num_heads={nearest_divisors(num_heads, tuples)}, or for these heads a multiple of"
                f" {num_heads * self.algebra.size}"
            )
        for name, width in (("kdim", self.kdim), ("vdim", self.vdim)):
            tuples_in(width, self.algebra, name)
        make = lambda width: AlgebraLinear(width, embed_dim, bias, device, dtype, algebra=self.algebra)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = map(make, (embed_dim, self.kdim, self.vdim, embed_dim))
        if add_bias_kv:
            self._add_bias_kv({"device": device, "dtype": dtype})
        quantize_parameters_(self, bits)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, algebra={self.algebra}"
