"""Attention and Transformers whose projections are factored linear layers: PHM as in R2D2, or Kronecker sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parameters import quantize_parameters_
from ..sizes import check_count, check_divides
from .factored import FactoredLinear
from .phm import PHMLinear, Rule, make_rule
from .shapeshifter import KroneckerLinear

MakeLinear = Callable[[int, int], FactoredLinear]
Activation = str | Callable[[Tensor], Tensor]


class FactoredMultiheadAttention(nn.Module):
    """The base of the attention layers here: `torch.nn.MultiheadAttention` with other projections, usable in its place.

    Projections are separate `FactoredLinear` layers q_proj, k_proj, v_proj and out_proj, or with `fused` one
    qkv_proj that gives all three.
    """

    # What torch's own Transformer layers ask of an attention before they take their fused path; None declines it.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float,
        kdim: int | None,
        vdim: int | None,
        batch_first: bool,
        fused: bool,
        make_linear: MakeLinear,
        bits: int | None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = check_count("embed_dim", embed_dim), check_count("num_heads", num_heads)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide embed_dim={embed_dim}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability from 0 to 1, got {dropout}")
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.dropout, self.batch_first, self.fused = float(dropout), batch_first, fused
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
            query: (L, N, embed_dim), (N, L, embed_dim) with batch_first, or (L, embed_dim) unbatched.
            key, value: likewise with kdim and vdim, of length S.
            key_padding_mask: (N, S), True or -inf where a key is ignored.
            attn_mask: (L, S) or (N * num_heads, L, S), True or -inf where attention is not allowed.
            need_weights: return them too; False is faster.
            average_attn_weights: over the heads, (N, L, S); else (N, num_heads, L, S).
            is_causal: a hint that attn_mask is the causal mask; it needs attn_mask.
        """
        unbatched = query.dim() == 2
        if query.dim() not in (2, 3) or key.dim() != query.dim() or value.dim() != query.dim():
            raise ValueError(
                "query, key and value must all have 2 (unbatched) or 3 dimensions,"
                f" got shapes {tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}"
            )
        batch = slice(0, 0) if unbatched else slice(0, 1) if self.batch_first else slice(1, 2)
        if key.shape[:-1] != value.shape[:-1] or key.shape[batch] != query.shape[batch]:
            raise ValueError(
                "key and value must have one length, and query, key and value one batch size,"
                f" got shapes {tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}"
            )
        if is_causal and attn_mask is None:
            raise ValueError("is_causal=True needs attn_mask, as in torch.nn.MultiheadAttention")
        q, k, v = self._project(query, key, value)
        if unbatched:
            q, k, v = q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))  # (N, heads, length, size)
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.mT / q.shape[-1] ** 0.5
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, dim=-1), dropout)
            heads = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights.squeeze(0) if unbatched else weights
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(heads.transpose(1, 2).flatten(-2))
        if unbatched:
            return out.squeeze(0), weights
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _mask(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
        """The sum of both masks, additive, broadcast against (N, heads, L, S)."""
        total = None
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (q.shape[0], self.num_heads))
            total = _additive(attn_mask, q)
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q)[:, None, None, :]
            total = padding if total is None else total + padding
        return total

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
    return mask.to(like.dtype)


class PHMMultiheadAttention(FactoredMultiheadAttention):
    """Multi-head attention whose projections are PHMs; usable where `torch.nn.MultiheadAttention` is.

    Args:
        embed_dim, num_heads, dropout, bias, kdim, vdim, batch_first, device, dtype: as in torch.
        n: dimension of the hypercomplex algebra; it divides embed_dim, kdim and vdim.
        fused: False has one PHM each for queries, keys and values; True one for all three, as R2D2's equation does.
        rule: as in `PHMLinear`; a parameter is shared by all projections.
        share_rule: one A for all projections.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, else each is a LogTensor of so many bits.

    Shapes and masks as in torch; see `forward`. add_bias_kv and add_zero_attn are not offered.

    Raises:
        ValueError: n or num_heads does not divide the sizes; fused with other kdim or vdim.

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
        super().__init__(embed_dim, num_heads, dropout, kdim, vdim, batch_first, fused, make, bits)
        self.n = n


class KroneckerMultiheadAttention(FactoredMultiheadAttention):
    """Multi-head attention whose projections are sums of `rank` Kronecker products; see `PHMMultiheadAttention`.

    Args:
        embed_dim, num_heads, dropout, bias, kdim, vdim, batch_first, fused, impl, bits, device, dtype: as in
            `PHMMultiheadAttention`.
        rank, sizes: as in `KroneckerLinear`.

    Shapes: as in `torch.nn.MultiheadAttention`.

    Raises:
        TypeError, ValueError: as `KroneckerLinear`; heads that do not divide embed_dim.

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
        super().__init__(embed_dim, num_heads, dropout, kdim, vdim, batch_first, fused, make, bits)
        self.rank = rank


class _PHMOptions:
    """The options of PHM that all modules of a Transformer pass on; with `share_rule` its one A is made here."""

    def __init__(
        self, n: int, rule: Rule, share_rule: bool, impl: str, bias: bool, factory: dict[str, Any], **sizes: int
    ) -> None:
        check_divides(n, **sizes)
        self.n, self.bias = n, bias
        self.rule = make_rule(n, rule, True, factory) if share_rule else rule
        self.rest: dict[str, Any] = {"rule": self.rule, "impl": impl, **factory}

    def linear(self, d: int, k: int) -> PHMLinear:
        return PHMLinear(d, k, self.n, self.bias, **self.rest)

    def attention(self, like: nn.MultiheadAttention, fused: bool) -> PHMMultiheadAttention:
        return PHMMultiheadAttention(
            like.embed_dim,
            like.num_heads,
            self.n,
            like.dropout,
            self.bias,
            batch_first=like.batch_first,
            fused=fused,
            **self.rest,
        )


class PHMTransformerEncoderLayer(nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer` with PHMs for all of its linear transformations.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device,
            dtype: as in torch.
        n: divides d_model and dim_feedforward.
        fused, rule, share_rule, impl, bits: as in `PHMMultiheadAttention`; bits makes the norms LogTensors too.

    Shapes: as in torch.

    Source: R2D2, section 3.2.

    >>> PHMTransformerEncoderLayer(16, 4, n=4, dim_feedforward=32)(torch.randn(5, 2, 16)).shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        n: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        fused: bool = False,
        rule: Rule = None,
        share_rule: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        sizes = {"d_model": d_model, "dim_feedforward": dim_feedforward}
        phm = _PHMOptions(n, rule, share_rule, impl, bias, factory, **sizes)
        shape = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        super().__init__(*shape, device, dtype)
        self.self_attn = phm.attention(self.self_attn, fused)  # type: ignore[assignment]
        self.linear1 = phm.linear(d_model, dim_feedforward)  # type: ignore[assignment]
        self.linear2 = phm.linear(dim_feedforward, d_model)  # type: ignore[assignment]
        quantize_parameters_(self, bits)


class PHMTransformerDecoderLayer(nn.TransformerDecoderLayer):
    """`torch.nn.TransformerDecoderLayer` with PHMs for all of its linear transformations.

    Args:
        d_model, nhead, n, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, fused,
            rule, share_rule, impl, bits, device, dtype: as in `PHMTransformerEncoderLayer`.

    Shapes: as in `torch.nn.TransformerDecoderLayer`.

    Source: as for `PHMTransformerEncoderLayer`.

    >>> layer = PHMTransformerDecoderLayer(16, 4, n=4, dim_feedforward=32)
    >>> layer(torch.randn(5, 2, 16), torch.randn(7, 2, 16)).shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        n: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        fused: bool = False,
        rule: Rule = None,
        share_rule: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        sizes = {"d_model": d_model, "dim_feedforward": dim_feedforward}
        phm = _PHMOptions(n, rule, share_rule, impl, bias, factory, **sizes)
        shape = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        super().__init__(*shape, device, dtype)
        self.self_attn = phm.attention(self.self_attn, fused)  # type: ignore[assignment]
        self.multihead_attn = phm.attention(self.multihead_attn, fused)  # type: ignore[assignment]
        self.linear1 = phm.linear(d_model, dim_feedforward)  # type: ignore[assignment]
        self.linear2 = phm.linear(dim_feedforward, d_model)  # type: ignore[assignment]
        quantize_parameters_(self, bits)


class PHMTransformerEncoder(nn.TransformerEncoder):
    """A stack of `PHMTransformerEncoderLayer`, which `torch.nn.TransformerEncoder` runs.

    Args:
        num_layers: number of layers.
        d_model, nhead, n: of each layer.
        norm: applied last, or None.
        share_rule: one A for all layers.
        rule, bits, options: as in `PHMTransformerEncoderLayer`.

    Shapes: (S, N, d_model), unchanged.

    Raises:
        ValueError: as `PHMTransformer`; num_layers below 1.

    >>> encoder = PHMTransformerEncoder(2, 16, 4, n=4, dim_feedforward=32, share_rule=True)
    >>> encoder(torch.randn(5, 2, 16)).shape, encoder.layers[0].linear1.A is encoder.layers[1].linear2.A
    (torch.Size([5, 2, 16]), True)
    """

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        n: int,
        *,
        norm: nn.Module | None = None,
        rule: Rule = None,
        share_rule: bool = False,
        bits: int | None = None,
        **options: Any,
    ) -> None:
        check_count("num_layers", num_layers)
        layers = _stack(PHMTransformerEncoderLayer, num_layers, d_model, nhead, n, rule, share_rule, options)
        super().__init__(layers[0], 1, norm, enable_nested_tensor=False)
        self.layers, self.num_layers = nn.ModuleList(layers), num_layers
        quantize_parameters_(self, bits)


class PHMTransformerDecoder(nn.TransformerDecoder):
    """A stack of `PHMTransformerDecoderLayer`, which `torch.nn.TransformerDecoder` runs.

    Args:
        num_layers, d_model, nhead, n, norm, rule, share_rule, bits, options: as in `PHMTransformerEncoder`.

    Shapes: target (T, N, d_model) and the encoder's output (S, N, d_model) to (T, N, d_model).

    Raises:
        ValueError: as `PHMTransformer`; num_layers below 1.

    >>> decoder = PHMTransformerDecoder(2, 16, 4, n=4, dim_feedforward=32)
    >>> decoder(torch.randn(5, 2, 16), torch.randn(7, 2, 16)).shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        n: int,
        *,
        norm: nn.Module | None = None,
        rule: Rule = None,
        share_rule: bool = False,
        bits: int | None = None,
        **options: Any,
    ) -> None:
        check_count("num_layers", num_layers)
        layers = _stack(PHMTransformerDecoderLayer, num_layers, d_model, nhead, n, rule, share_rule, options)
        super().__init__(layers[0], 1, norm)
        self.layers, self.num_layers = nn.ModuleList(layers), num_layers
        quantize_parameters_(self, bits)


class PHMTransformer(nn.Transformer):
    """A sequence-to-sequence Transformer of PHMs: `torch.nn.Transformer` with such an encoder and decoder.

    Args:
        d_model, nhead, num_encoder_layers, num_decoder_layers, dim_feedforward, dropout, activation, layer_norm_eps,
            batch_first, norm_first, bias, device, dtype: as in torch.
        n: divides d_model and dim_feedforward.
        fused, rule, share_rule, impl, bits: as in `PHMTransformerEncoderLayer`; share_rule has one A for the whole.

    Shapes: as in torch: source (S, N, d_model) and target (T, N, d_model) to (T, N, d_model).

    Raises:
        ValueError: n does not divide the sizes, nhead not d_model; an unfit rule.

    Source: R2D2, section 3.2.

    >>> model = PHMTransformer(16, 4, n=4, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=32)
    >>> model(torch.randn(7, 2, 16), torch.randn(5, 2, 16)).shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        n: int = 4,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        fused: bool = False,
        rule: Rule = None,
        share_rule: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_divides(n, d_model=d_model, dim_feedforward=dim_feedforward)
        factory = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "layer_norm_eps": layer_norm_eps,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
            "fused": fused,
            "rule": make_rule(n, rule, True, factory) if share_rule else rule,
            "impl": impl,
            **factory,
        }
        norm = lambda: nn.LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **factory)
        super().__init__(
            d_model,
            nhead,
            custom_encoder=PHMTransformerEncoder(num_encoder_layers, d_model, nhead, n, norm=norm(), **options),
            custom_decoder=PHMTransformerDecoder(num_decoder_layers, d_model, nhead, n, norm=norm(), **options),
            batch_first=batch_first,
            **factory,
        )
        quantize_parameters_(self, bits)

    def _reset_parameters(self) -> None:
        """torch draws every matrix anew with Glorot's variance here, which factors must not have."""


def _stack(
    make: Any, count: int, d_model: int, nhead: int, n: int, rule: Rule, share_rule: bool, options: dict[str, Any]
) -> list[Any]:
    if share_rule:
        rule = make_rule(n, rule, True, {name: options.get(name) for name in ("device", "dtype")})
    return [make(d_model, nhead, n, rule=rule, **options) for _ in range(count)]
