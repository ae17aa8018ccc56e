"""A Transformer-XL decoder over an algebra: relative positions, and a memory of past segments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Algebra, AlgebraEmbedding, AlgebraLinear
from ..nn.attention import merge_heads, split_heads, weighted
from ..nn.checks import check_count, check_probability
from .parts import Parts


class _RelativeAttention(nn.Module):
    """Attention to a segment and its memory. Scores by content and scores by distance have biases of their own.

    score(i, j) = (q_i + u) . k_j + (q_i + v) . r_(i - j), causal; real dot products of flattened tuples.
    """

    def __init__(self, parts: Parts, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        make = lambda a, b: AlgebraLinear(a, b, bias=False, **parts.options)
        inner = heads * head_width
        self.query, self.key, self.value = make(width, inner), make(width, inner), make(width, inner)
        self.position, self.out = make(width, inner), make(inner, width)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, head_width, **parts.like))
        self.position_bias = nn.Parameter(torch.zeros(heads, 1, head_width, **parts.like))
        self.dropout = check_probability("dropout", dropout)

    def forward(self, x: Tensor, memory: Tensor, distances: Tensor) -> Tensor:
        """x (batch, length, width), memory (batch, past, width), distances (past + length, width), from far to near."""
        seen = torch.cat([memory, x], 1)
        projected = (self.query(x), self.key(seen), self.value(seen), self.position(distances))
        q, k, v, r = (split_heads(t, self.heads) for t in projected)
        content, position = (q + self.content_bias) @ k.mT, (q + self.position_bias) @ r.mT
        scores = (content + _shifted(position)) / self.head_width**0.5
        length, past = x.shape[1], memory.shape[1]
        future = torch.ones(length, past + length, dtype=torch.bool, device=x.device).triu(past + 1)
        dropout = self.dropout if self.training else 0.0
        return self.out(merge_heads(weighted(scores.masked_fill(future, float("-inf")), v, dropout)[0]))


def _shifted(scores: Tensor) -> Tensor:
    """Scores by distance, far first, to scores by key: row i moves left by length - 1 - i. The rest are future keys."""
    batch, heads, length, keys = scores.shape
    padded = torch.cat([scores.new_zeros(batch, heads, length, 1), scores], -1)
    return padded.view(batch, heads, keys + 1, length)[:, :, 1:].reshape(scores.shape)


class _Layer(nn.Module):
    """Attention and a feed-forward network, each with a shortcut and a layer norm after it."""

    def __init__(
        self, parts: Parts, width: int, heads: int, head_width: int, feed_forward: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = _RelativeAttention(parts, width, heads, head_width, dropout)
        self.feed_forward = nn.Sequential(
            AlgebraLinear(width, feed_forward, **parts.options),
            nn.ReLU(),
            nn.Dropout(dropout),
            AlgebraLinear(feed_forward, width, **parts.options),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, **parts.like) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, distances: Tensor) -> Tensor:
        x = self.norms[0](x + self.dropout(self.attention(x, memory, distances)))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class TransformerXL(nn.Module):
    """A causal language model with relative positions and memory; all linear layers are products of an algebra.

    Args:
        algebra: name or `Algebra`.
        vocabulary: tokens in, and logits out.
        width: real scalars of the embedding, a multiple of A. Default: 512, or the multiple of A nearest to it.
        layers: number of layers.
        heads, head_width: of the attention; head_width, in real scalars, a multiple of A. Default: the multiple of A
            nearest to width / heads.
        feed_forward: hidden width of the feed-forward networks, a multiple of A. Default: 1536, or the nearest to it.
        memory: past positions that each layer can see beyond its segment.
        dropout: component-wise.
        bits: None for float parameters, or B for LogTensors.
        device, dtype: of all parameters.

    Shape: (batch, length) of indices, and the memories of the last call (a tensor (layers, batch, past, width), or None
    at the start), to logits (batch, length, vocabulary) and the next memories, without gradients.

    Raises:
        ValueError: a width that is not a multiple of A, or memories of another batch.

    Source: AlgebraNets, section 4.3 (its "efficient" model: 24 layers, width 512, 4 heads of 128, feed-forward 1536),
    after Dai et al. 2019.

    >>> model = TransformerXL("M2R", vocabulary=10, width=16, layers=2, heads=2, feed_forward=32, memory=6)
    >>> logits, memory = model(torch.zeros(3, 4, dtype=torch.long))
    >>> logits, memory = model(torch.zeros(3, 4, dtype=torch.long), memory)
    >>> logits.shape, memory.shape
    (torch.Size([3, 4, 10]), torch.Size([2, 3, 6, 16]))
    """

    def __init__(
        self,
        algebra: str | Algebra = "M2R",
        vocabulary: int = 256,
        width: int | None = None,
        layers: int = 24,
        heads: int = 4,
        head_width: int | None = None,
        feed_forward: int | None = None,
        memory: int = 1536,
        dropout: float = 0.0,
        *,
        bits: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        parts = Parts(algebra, bits, device=device, dtype=dtype)
        check_count("layers", layers)
        check_count("heads", heads)
        check_count("memory", memory, least=0)
        width = parts.chosen("width", width, 512)
        head_width = parts.chosen("head_width", head_width, width / heads)
        feed_forward = parts.chosen("feed_forward", feed_forward, 1536)
        self.width, self.memory = width, memory
        self.embedding = AlgebraEmbedding(vocabulary, width, **parts.options)
        self.layers = nn.ModuleList(
            _Layer(parts, width, heads, head_width, feed_forward, dropout) for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = parts.logits(width, vocabulary)

    def forward(self, input: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.dropout(self.embedding(input))
        if memory is None:
            memory = x.new_zeros(len(self.layers), x.shape[0], 0, self.width)
        expected = (len(self.layers), x.shape[0], memory.shape[2] if memory.dim() == 4 else "past", self.width)
        if tuple(memory.shape) != expected:
            raise ValueError(f"memory must be (layers, batch, past, width), {expected} here, got {tuple(memory.shape)}")
        distances = self.dropout(self._distances(memory.shape[2] + x.shape[1], x))
        kept = []
        for layer, past in zip(self.layers, memory, strict=True):
            kept.append(torch.cat([past, x], 1)[:, -self.memory :].detach() if self.memory else past)
            x = layer(x, past, distances)
        return self.head(x), torch.stack(kept)

    def _distances(self, count: int, like: Tensor) -> Tensor:
        """The sinusoids of the distances count - 1, ..., 0."""
        distance = torch.arange(count - 1, -1, -1, device=like.device, dtype=torch.float32)
        rate = 10000 ** (-torch.arange(0, self.width, 2, device=like.device, dtype=torch.float32) / self.width)
        angle = distance.unsqueeze(1) * rate
        return torch.cat([angle.sin(), angle.cos()], 1)[:, : self.width].to(like.dtype)
