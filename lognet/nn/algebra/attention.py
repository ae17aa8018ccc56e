"""Multi-head attention over an algebra: algebra projections around a real attention map."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tensor.floats import dense
from ..parameters import check_bits, quantize_parameters_
from ..sizes import check_count, nearest_divisors
from .algebras import Algebra, tuples_in
from .linear import AlgebraLinear, check_input


class AlgebraMultiheadAttention(nn.Module):
    """Attention whose four projections are products of an algebra, and whose scores are real numbers.

    The score of a query and a key is the real dot product of their flattened tuples, <F(k), F(q)>, so that the
    attention map costs what a real one does.

    Args:
        embed_dim: real scalars, a multiple of num_heads * A: a head holds whole tuples.
        num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype: as in
            `torch.nn.MultiheadAttention`. The key and the value that `add_bias_kv` learns are `bias_k` and `bias_v`.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B for LogTensors.

    Shape: query (L, N, embed_dim), (N, L, embed_dim) if `batch_first`, or (L, embed_dim); key and value likewise with
    kdim and vdim features. Returns the output, shaped as the query, and the weights (N, L, S), averaged over heads,
    (N, num_heads, L, S), or None: see `forward`.

    Raises:
        ValueError: a width that is not a multiple of A, heads of broken tuples, inputs of other shapes.
        TypeError: inputs of another dtype than the parameters, outside autocast.

    Source: AlgebraNets, section 4.3.

    >>> attention = AlgebraMultiheadAttention(16, 2, batch_first=True, algebra="M2R")
    >>> x = torch.ones(3, 5, 16)
    >>> out, weights = attention(x, x, x)
    >>> out.shape, weights.shape
    (torch.Size([3, 5, 16]), torch.Size([3, 5, 5]))
    """

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
        super().__init__()
        self.algebra, self.bits = Algebra.of(algebra), check_bits(bits)
        tuples = tuples_in(embed_dim, self.algebra, "embed_dim")
        if tuples % check_count("num_heads", num_heads):
            raise ValueError(
                f"num_heads={num_heads} must divide the {tuples} tuples of embed_dim={embed_dim} (algebra {self.algebra},"
                f" tuples of {self.algebra.size}): a head holds whole tuples. For this width use"
                f" num_heads={nearest_divisors(num_heads, tuples)}, or for these heads a multiple of"
                f" {num_heads * self.algebra.size}"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability, between 0 and 1, got {dropout}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        for name, width in (("kdim", self.kdim), ("vdim", self.vdim)):
            tuples_in(width, self.algebra, name)
        self.add_zero_attn = add_zero_attn
        self.head_dim = embed_dim // num_heads
        make = lambda width: AlgebraLinear(width, embed_dim, bias, device, dtype, algebra=self.algebra)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = map(make, (embed_dim, self.kdim, self.vdim, embed_dim))
        row = lambda: nn.init.xavier_normal_(torch.empty(1, 1, embed_dim, device=device, dtype=dtype))
        self.bias_k = nn.Parameter(row()) if add_bias_kv else None
        self.bias_v = nn.Parameter(row()) if add_bias_kv else None
        quantize_parameters_(self, bits)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `torch.nn.MultiheadAttention`.

        Args:
            query, key, value: see the class.
            key_padding_mask: (N, S) or (S,), True (or -inf) at keys to ignore.
            need_weights: return the weights; without them `scaled_dot_product_attention` runs its fast kernels.
            attn_mask: (L, S) or (N * num_heads, L, S): True where attention is not allowed, or numbers to add.
            average_attn_weights: average the weights over heads.
            is_causal: a hint that `attn_mask` is the causal mask; given alone, that mask is used.
        """
        unbatched = query.dim() == 2
        if query.dim() not in (2, 3) or key.dim() != query.dim() or value.dim() != query.dim():
            shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
            raise ValueError(f"query, key and value must all be batched (3 dimensions) or not (2), got {shapes}")
        if unbatched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        check_input(query, self.embed_dim, self.q_proj.weight, "embed_dim", "query")
        check_input(key, self.kdim, self.k_proj.weight, "kdim", "key")
        check_input(value, self.vdim, self.v_proj.weight, "vdim", "value")
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            sizes = ", ".join(str(tuple(x.shape[:2])) for x in (query, key, value))
            raise ValueError(
                "query, key and value must be of one batch, key and value of one length; their (batch, length) are"
                f" {sizes}"
            )
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        added = 0  # keys behind those given, which no mask hides
        if self.bias_k is not None and self.bias_v is not None:
            k, v, added = _with_row(k, dense(self.bias_k)), _with_row(v, dense(self.bias_v)), added + 1
        if self.add_zero_attn:
            zero = k.new_zeros(1, 1, self.embed_dim)
            k, v, added = _with_row(k, zero), _with_row(v, zero), added + 1
        q, k, v = (x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        mask = self._mask(key_padding_mask, attn_mask, is_causal, q, k.shape[2] - added)
        mask = F.pad(mask, (0, added)) if mask is not None and added else mask
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.mT / self.head_dim**0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            out = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out = self.out_proj(out.transpose(1, 2).flatten(-2))
        if unbatched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _mask(
        self, padding: Tensor | None, attention: Tensor | None, is_causal: bool, q: Tensor, keys: int
    ) -> Tensor | None:
        """What is added to the scores of `keys` keys, broadcastable to (N, heads, L, keys)."""
        batch, _, length, _ = q.shape
        if attention is None and is_causal:
            attention = torch.ones(length, keys, dtype=torch.bool, device=q.device).triu(1)
        mask = None
        if attention is not None:
            if attention.shape not in ((length, keys), (batch * self.num_heads, length, keys)):
                raise ValueError(
                    f"attn_mask must be {(length, keys)} or {(batch * self.num_heads, length, keys)}, got"
                    f" {tuple(attention.shape)}"
                )
            mask = _additive(attention, q)
            mask = mask if mask.dim() == 2 else mask.view(batch, self.num_heads, length, keys)
        if padding is not None:
            if padding.shape != (batch, keys):
                raise ValueError(f"key_padding_mask must be {(batch, keys)}, got {tuple(padding.shape)}")
            padding = _additive(padding, q).view(batch, 1, 1, keys)
            mask = padding if mask is None else mask + padding
        return mask

    def extra_repr(self) -> str:
        """The arguments."""
        text = f"{self.embed_dim}, num_heads={self.num_heads}, algebra={self.algebra}"
        text += "" if self.bias_k is None else ", add_bias_kv=True"
        return text + (", add_zero_attn=True" if self.add_zero_attn else "")


def _with_row(x: Tensor, row: Tensor) -> Tensor:
    """(N, S, E) with one more row behind, (1, 1, E)."""
    return torch.cat([x, row.to(x.dtype).expand(x.shape[0], -1, -1)], 1)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill_(mask, float("-inf"))
