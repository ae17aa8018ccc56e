"""The networks of the sweep, written plainly: a small conv net, a small transformer, and ResNet-18.

They do not use lognet. ``lognet.wrap`` turns any of them into a network whose weights are a few bits each.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Three 3 x 3 convolutions with batch norm for 8 x 8 pictures; about 60 thousand weights.

    Args:
        classes: number of logits.
        width: channels of the first convolution; the others have twice as many.

    Shape: (N, 1, 8, 8) to (N, classes).

    >>> import torch
    >>> ConvNet(10)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Block(nn.Module):
    """One pre-norm transformer block: causal self-attention, then a two-layer perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}; use {width + heads - width % heads}")
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A causal transformer over symbols; about 120 thousand weights at width 64.

    Args:
        symbols: size of the alphabet.
        context: the longest sequence that it can read.
        width: features of a symbol, a multiple of `heads`.
        heads: of attention.
        layers: blocks of attention and perceptron.

    Shape: int64 (N, L) with L at most `context`, to logits (N, L, symbols).

    Raises:
        ValueError: a width that is not a multiple of heads.

    >>> import torch
    >>> Transformer(symbols=50, context=64)(torch.zeros(2, 10, dtype=torch.long)).shape
    torch.Size([2, 10, 50])
    """

    def __init__(self, symbols: int, context: int, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, width)
        self.position = nn.Embedding(context, width)
        # The default N(0, 1) drowns the first residual sums; a tenth of it trains better under every optimizer.
        for table in (self.symbol, self.position):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        h = self.symbol(x) + self.position.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(h)))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which becomes a 1 x 1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for 32 x 32 pictures (3 x 3 stem, no first pooling), 11.2 million weights at width 64.

    Args:
        classes: logits.
        width: channels of the first of its four stages; each has twice those of the one before.

    Shape: (n, 3, height, width) to (n, classes).

    Source: He et al. 2016, as usual on CIFAR.

    >>> import torch
    >>> ResNet18(10, width=4)(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        before = width
        for stage in range(4):
            after = width * 2**stage
            blocks += [BasicBlock(before, after, 1 if stage == 0 else 2), BasicBlock(after, after, 1)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(h.mean(dim=(2, 3)))
