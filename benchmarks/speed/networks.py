"""A causal transformer for training and generation, with an optional cache of keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Memory = list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, memory: Memory | None, layer: int) -> Tensor:
        qkv = self.qkv(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if memory is not None:
            if len(memory) > layer:
                k, v = (torch.cat([old, new], dim=2) for old, new in zip(memory[layer], (k, v), strict=True))
                memory[layer] = (k, v)
            else:
                memory.append((k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.before_layers(x))))


class Transformer(nn.Module):
    """Logits of the next token, (batch, length, vocabulary), for tokens (batch, length).

    `memory`, a list that is empty at first, holds the keys and values so far. `tokens` then has one new token a row.
    """

    def __init__(self, width: int, layers: int, vocabulary: int = 256, heads: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor, memory: Memory | None = None) -> Tensor:
        x = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            x = block(x, memory, layer)
        return self.head(self.norm(x))
