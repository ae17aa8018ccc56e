"""The residual network for CIFAR-10 of AlgebraNets, appendix D."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Algebra, TupleLift
from .parts import Parts


class _Block(nn.Module):
    """Norm, activation and convolution, twice. A projecting block ends a stage and halves the image.

    Its shortcut, a 1 x 1 convolution, is concatenated and not added, which doubles the channels.
    """

    def __init__(self, parts: Parts, channels: int, projecting: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            parts.norm(channels),
            parts.activation(),
            parts.conv(channels, channels, 3),
            parts.norm(channels),
            parts.activation(),
            parts.conv(channels, channels, 3, stride=2 if projecting else 1),
        )
        self.shortcut = parts.conv(channels, channels, 1, stride=2) if projecting else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return x + self.body(x)
        return torch.cat([self.shortcut(x), self.body(x)], 1)


class CifarResNet(nn.Module):
    """The ResNet of appendix D. It has 128, 256 and 512 real channels for every algebra, so algebras save parameters.

    The paper gives no block counts. This model has three blocks of 128 channels, a projecting one, one of 256 and a
    projecting one, because these meet the paper's parameter counts (3.64M R, 1.85M C, 0.94M M2R and H) within 2 %. The
    paper says of tuples of four or more: "the initial convolution has half the original number of channels". This model
    reads that as 64 tuples, and a 1 x 1 convolution maps them to 128 real channels.

    Args:
        algebra: name or `Algebra`.
        num_classes: logits.
        width: real channels of the first stage, a multiple of A. Default: 128, or the multiple of A nearest to it.
        blocks: residual blocks of the first and second stages, before the projecting ones.
        bits: None for float parameters, or B for LogTensors.
        norm: "batch" or "whitening".
        activation: "relu" or "swish".
        device, dtype: of all parameters.

    Shape: (N, 3, H, W) to (N, num_classes).

    Raises:
        ValueError: `width` is not a multiple of A, an unknown norm or activation.

    Source: AlgebraNets, appendix D, after Gaudet and Maida 2018.

    >>> CifarResNet("M2R", width=16)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        algebra: str | Algebra = "M2R",
        num_classes: int = 10,
        width: int | None = None,
        blocks: tuple[int, int] = (3, 1),
        *,
        bits: int | None = None,
        norm: str = "batch",
        activation: str = "relu",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        parts = Parts(algebra, bits, norm, activation, device, dtype)
        size = parts.algebra.size
        width = parts.chosen("width", width, 128)
        first = width // 2 * size if size >= 4 else width
        self.lift = TupleLift(3, dim=1, **parts.options)
        stem = [parts.conv(3 * size, first, 3)]
        if first != width:
            stem.append(parts.conv(first, width, 1))
        self.stem = nn.Sequential(*stem)
        stages = []
        for stage, count in enumerate(blocks):
            channels = width * 2**stage
            stages += [_Block(parts, channels, projecting=False) for _ in range(count)]
            stages.append(_Block(parts, channels, projecting=True))
        last = width * 2 ** len(blocks)
        self.stages = nn.Sequential(*stages, parts.norm(last), parts.activation())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = parts.logits(last, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        x = self.stages(self.stem(self.lift(input)))
        return self.head(self.pool(x).flatten(1))
