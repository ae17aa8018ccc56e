"""Multi-head attention as `torch.nn.MultiheadAttention` defines it; the layer families supply only the projections."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tensor.floats import dense
from .checks import check_count, check_probability
from .parameters import check_dtype


class MultiheadAttentionBase(nn.Module):
    """The base of the attention layers; a torch Transformer layer takes one in place of `torch.nn.MultiheadAttention`.

    A subclass makes `out_proj`, says in `_project` how query, key and value are projected, and calls `_add_bias_kv` if
    asked for it. The arguments are those of `torch.nn.MultiheadAttention`.
    """

    # torch's Transformer layers read these before they take their fused path, which needs torch's own weights.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    out_proj: nn.Module
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float,
        add_zero_attn: bool,
        kdim: int | None,
        vdim: int | None,
        batch_first: bool,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = check_count("embed_dim", embed_dim), check_count("num_heads", num_heads)
        self.kdim = embed_dim if kdim is None else check_count("kdim", kdim)
        self.vdim = embed_dim if vdim is None else check_count("vdim", vdim)
        self.dropout, self.add_zero_attn = check_probability("dropout", dropout), add_zero_attn
        self.batch_first, self.bias_k, self.bias_v = batch_first, None, None

    def _add_bias_kv(self, factory: dict[str, Any]) -> None:
        row = lambda: nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, self.embed_dim, **factory)))
        self.bias_k, self.bias_v = row(), row()

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value with `embed_dim` features each; their other dimensions stay."""
        raise NotImplementedError

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
        """As `torch.nn.MultiheadAttention`: (output, attention weights or None).

        Args:
            query: (L, N, embed_dim), (N, L, embed_dim) with `batch_first`, or (L, embed_dim) unbatched.
            key, value: likewise with kdim and vdim features, of length S.
            key_padding_mask: (N, S), or (S,) unbatched: True at keys to ignore, or numbers to add to the scores.
            attn_mask: (L, S) or (N * num_heads, L, S): True where attention is not allowed, or numbers to add.
            need_weights: return the weights. Without them `scaled_dot_product_attention` runs its fast kernels.
            average_attn_weights: return the mean of the weights over heads, (N, L, S), or all, (N, num_heads, L, S).
            is_causal: promises that `attn_mask`, which must be given, is the causal mask. A fast kernel that knows it
                may then leave the mask unread.

        Raises:
            ValueError: shapes that do not fit; `is_causal` without `attn_mask`.
            TypeError: inputs of another dtype than the parameters, outside autocast; a mask of integers.
        """
        unbatched = self._check_inputs(query, key, value)
        if is_causal and attn_mask is None:
            raise ValueError(
                "is_causal=True needs attn_mask, as in torch.nn.MultiheadAttention; give"
                " torch.nn.Transformer.generate_square_subsequent_mask(length)"
            )
        q, k, v = self._project(query, key, value)
        if unbatched:
            q, k, v = q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        mask = attention_mask(attn_mask, key_padding_mask, (*q.shape[:2], k.shape[1]), self.num_heads, q.dtype)
        added = 0  # keys after the given ones, which no mask hides
        if self.bias_k is not None and self.bias_v is not None:
            k, v, added = _with_row(k, dense(self.bias_k)), _with_row(v, dense(self.bias_v)), added + 1
        if self.add_zero_attn:
            zero = k.new_zeros(1, 1, self.embed_dim)
            k, v, added = _with_row(k, zero), _with_row(v, zero), added + 1
        mask = F.pad(mask, (0, added)) if mask is not None and added else mask
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.mT / q.shape[-1] ** 0.5
            heads, weights = weighted(scores if mask is None else scores + mask, v, dropout)
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            is_causal = is_causal and key_padding_mask is None and not added  # then the mask says nothing more
            heads = F.scaled_dot_product_attention(q, k, v, None if is_causal else mask, dropout, is_causal)
        out = self.out_proj(merge_heads(heads))
        if unbatched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether the inputs are unbatched; TypeError or ValueError if they do not fit the layer or each other."""
        inputs = {"query": (query, self.embed_dim), "key": (key, self.kdim), "value": (value, self.vdim)}
        shapes = ", ".join(str(tuple(x.shape)) for x, _ in inputs.values())
        if query.dim() not in (2, 3) or key.dim() != query.dim() or value.dim() != query.dim():
            raise ValueError(f"query, key and value must all have 2 (unbatched) or 3 dimensions, got shapes {shapes}")
        parameter = next(self.out_proj.parameters())
        for name, (x, width) in inputs.items():
            if x.shape[-1] != width:
                width_name = "embed_dim" if name == "query" else f"{name[0]}dim"
                raise ValueError(f"{name} must have {width_name}={width} last, got shape {tuple(x.shape)}")
            check_dtype(x, parameter, name)
        batch = slice(0, 0) if query.dim() == 2 else slice(0, 1) if self.batch_first else slice(1, 2)
        if key.shape[:-1] != value.shape[:-1] or key.shape[batch] != query.shape[batch]:
            raise ValueError(
                f"key and value must have one length, and query, key and value one batch size, got shapes {shapes}"
            )
        return query.dim() == 2

    def extra_repr(self) -> str:
        text = f"{self.embed_dim}, num_heads={self.num_heads}"
        text += "" if self.bias_k is None else ", add_bias_kv=True"
        for name, default in (("dropout", 0.0), ("add_zero_attn", False), ("batch_first", False)):
            text += "" if getattr(self, name) == default else f", {name}={getattr(self, name)}"
        return text


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(*, length, heads * size) to (*, heads, length, size).

    >>> split_heads(torch.ones(5, 7, 6), heads=2).shape
    torch.Size([5, 2, 7, 3])
    """
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    return x.transpose(-3, -2).flatten(-2)


def weighted(scores: Tensor, values: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    """The values (*, S, size) averaged by the softmax of scores (*, L, S), and the weights after dropout."""
    weights = F.dropout(torch.softmax(scores, dim=-1), dropout)
    return weights @ values, weights


def attention_mask(
    attention: Tensor | None, padding: Tensor | None, shape: tuple[int, int, int], heads: int, dtype: torch.dtype
) -> Tensor | None:
    """The sum of both masks as numbers to add to scores (N, heads, L, S), for `shape` (N, L, S); None without masks."""
    batch, length, keys = shape
    total = None
    if attention is not None:
        if attention.shape not in ((length, keys), (batch * heads, length, keys)):
            raise ValueError(
                f"attn_mask must be {(length, keys)} or {(batch * heads, length, keys)}, got {tuple(attention.shape)}"
            )
        total = _additive(attention, dtype, "attn_mask")
        total = total if total.dim() == 2 else total.view(batch, heads, length, keys)
    if padding is not None:
        if padding.shape != (batch, keys):
            raise ValueError(f"key_padding_mask must be {(batch, keys)}, got {tuple(padding.shape)}")
        hidden = _additive(padding, dtype, "key_padding_mask").view(batch, 1, 1, keys)
        total = hidden if total is None else total + hidden
    return total


def _additive(mask: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
    if not mask.is_floating_point():
        raise TypeError(f"{name} must be bool or floating, got {mask.dtype}; use {name}.bool() or .float()")
    return mask.to(dtype)


def _with_row(x: Tensor, row: Tensor) -> Tensor:
    """(N, S, E) with one more row at the end, (1, 1, E)."""
    return torch.cat([x, row.to(x.dtype).expand(x.shape[0], -1, -1)], 1)
