"""Multi-head attention whose projections are factored linear layers: PHM as in R2D2, or Kronecker sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attention import MultiheadAttentionBase
from ..checks import check_divides, nearest_divisors
from ..parameters import quantize_parameters_
from .factored import MakeLinear
from .phm import PHMLinear, Rule, make_rule
from .shapeshifter import KroneckerLinear


class FactoredMultiheadAttention(MultiheadAttentionBase):
    """The base of the attention layers here.

    The projections are separate `FactoredLinear` layers q_proj, k_proj, v_proj and out_proj. With `fused` one qkv_proj
    gives the first three.
    """

    def __init__(
        self,
        shape: tuple[Any, ...],
        fused: bool,
        make_linear: MakeLinear,
        add_bias_kv: bool,
        bits: int | None,
        factory: dict[str, Any],
    ) -> None:
        super().__init__(*shape)
        embed_dim, num_heads = self.embed_dim, self.num_heads
        if embed_dim % num_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide embed_dim={embed_dim}; use {nearest_divisors(num_heads, embed_dim)}"
            )
        self.fused = fused
        if fused:
            if (self.kdim, self.vdim) != (embed_dim, embed_dim):
                raise ValueError(
                    f"fused=True needs kdim = vdim = embed_dim={embed_dim}, got {self.kdim} and {self.vdim}"
                )
            self.qkv_proj = make_linear(embed_dim, 3 * embed_dim)
        else:
            self.q_proj = make_linear(embed_dim, embed_dim)
            self.k_proj, self.v_proj = make_linear(self.kdim, embed_dim), make_linear(self.vdim, embed_dim)
        self.out_proj = make_linear(embed_dim, embed_dim)
        if add_bias_kv:
            self._add_bias_kv(factory)
        quantize_parameters_(self, bits)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.fused:
            return self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if query is key and key is value:
            q, k, v = self.qkv_proj(query).chunk(3, dim=-1)
            return q, k, v
        size = self.embed_dim
        q = self.qkv_proj(query)[..., :size]
        if key is value:
            return q, *self.qkv_proj(key)[..., size:].chunk(2, dim=-1)
        return q, self.qkv_proj(key)[..., size : 2 * size], self.qkv_proj(value)[..., 2 * size :]


class PHMMultiheadAttention(FactoredMultiheadAttention):
    """Multi-head attention whose projections are PHMs; usable where `torch.nn.MultiheadAttention` is.

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype: as in
            torch.
        n: dimension of the hypercomplex algebra; it divides embed_dim, kdim and vdim.
        fused: False has one PHM each for queries, keys and values; True one for all three, as R2D2's equation does.
        rule: as in `PHMLinear`; a parameter is shared by all projections.
        share_rule: one A for all projections.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, or the width of LogTensor parameters.

    Shapes: as in torch: query (L, N, embed_dim), key (S, N, kdim) and value (S, N, vdim) to (L, N, embed_dim), or batch
    first, or unbatched. Masks and options of the call are those of torch.

    Raises:
        ValueError: n or num_heads does not divide the sizes; fused with other kdim or vdim; inputs or masks of other
            shapes.
        TypeError: inputs of another dtype than the parameters, outside autocast; a mask of integers.

    Source: R2D2, section 3.2.

    >>> attention, x = PHMMultiheadAttention(16, 4, n=4), torch.randn(5, 2, 16)
    >>> attention(x, x, x)[0].shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        n: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        fused: bool = False,
        rule: Rule = None,
        share_rule: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_divides(n, embed_dim=embed_dim, kdim=kdim or embed_dim, vdim=vdim or embed_dim)
        factory = {"device": device, "dtype": dtype}
        rule = make_rule(n, rule, True, factory) if share_rule else rule
        make = lambda d, k: PHMLinear(d, k, n, bias, rule=rule, impl=impl, **factory)
        shape = (embed_dim, num_heads, dropout, add_zero_attn, kdim, vdim, batch_first)
        super().__init__(shape, fused, make, add_bias_kv, bits, factory)
        self.n = n

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n={self.n}"


class KroneckerMultiheadAttention(FactoredMultiheadAttention):
    """Multi-head attention whose projections are sums of `rank` Kronecker products; see `PHMMultiheadAttention`.

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, fused, impl, bits,
            device, dtype: as in `PHMMultiheadAttention`.
        rank, sizes: as in `KroneckerLinear`.

    Shapes: as in `torch.nn.MultiheadAttention`.

    Raises:
        TypeError, ValueError: as `KroneckerLinear` and `PHMMultiheadAttention`.

    Source: "Shapeshifter", section 4.3.

    >>> attention, x = KroneckerMultiheadAttention(16, 4, rank=2), torch.randn(5, 2, 16)
    >>> attention(x, x, x)[0].shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        rank: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        fused: bool = False,
        sizes: str = "auto",
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        make = lambda d, k: KroneckerLinear(d, k, rank, bias, sizes=sizes, impl=impl, **factory)
        shape = (embed_dim, num_heads, dropout, add_zero_attn, kdim, vdim, batch_first)
        super().__init__(shape, fused, make, add_bias_kv, bits, factory)
        self.rank = rank

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"
