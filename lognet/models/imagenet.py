"""The image classifiers of AlgebraNets, section 4.1: ResNet-18 and -50, MobileNet-v1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..nn import Algebra, TupleLift
from .parts import Parts


class _Residual(nn.Module):
    """Convolutions, (inputs, outputs, kernel, stride) each, with a norm after each; a shortcut around all of them."""

    def __init__(self, parts: Parts, *convolutions: tuple[int, int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for sizes in convolutions:
            layers += [*([parts.activation()] if layers else []), parts.conv(*sizes), parts.norm(sizes[1])]
        self.body = nn.Sequential(*layers)
        inputs, outputs = convolutions[0][0], convolutions[-1][1]
        stride = max(step for *_, step in convolutions)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(parts.conv(inputs, outputs, 1, stride), parts.norm(outputs))
        self.activation = parts.activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class _Basic(_Residual):
    expansion = 1

    def __init__(self, parts: Parts, inputs: int, channels: int, stride: int) -> None:
        super().__init__(parts, (inputs, channels, 3, stride), (channels, channels, 3, 1))


class _Bottleneck(_Residual):
    expansion = 4

    def __init__(self, parts: Parts, inputs: int, channels: int, stride: int) -> None:
        narrow = (channels, channels, 3, stride)
        super().__init__(parts, (inputs, channels, 1, 1), narrow, (channels, channels * 4, 1, 1))


_DEPTHS: dict[int, tuple[type[_Basic] | type[_Bottleneck], tuple[int, ...]]] = {
    18: (_Basic, (2, 2, 2, 2)),
    50: (_Bottleneck, (3, 4, 6, 3)),
}


def _positive(width: float) -> float:
    if not width > 0:
        raise ValueError(f"width must be positive, a multiplier of all channels, got {width}")
    return width


class ResNet(nn.Module):
    """ResNet-18 or ResNet-50 over an algebra. Its layers have `width` times as many real scalars as the real model's.

    Args:
        depth: 18 or 50.
        algebra: name or `Algebra`.
        width: multiplier of all channels. Each product is rounded to the nearest multiple of A.
        num_classes: logits.
        bits: None for float parameters, or B for LogTensors.
        norm: "batch" or "whitening".
        activation: "swish", as in the paper's figures, or "relu", as in its pruning.
        device, dtype: of all parameters.

    Shape: (N, 3, H, W) to (N, num_classes).

    Raises:
        ValueError: another depth, a width that is not positive, an unknown norm or activation.

    Source: AlgebraNets, section 4.1 and Figure 1, after He et al. 2016. A one-layer MLP makes the components.

    >>> import torch
    >>> ResNet(18, "H", width=0.125)(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        depth: int = 50,
        algebra: str | Algebra = "M2R",
        width: float = 1.0,
        num_classes: int = 1000,
        *,
        bits: int | None = None,
        norm: str = "batch",
        activation: str = "swish",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, _DEPTHS))}, got {depth}")
        parts = Parts(algebra, bits, norm, activation, device, dtype)
        block, counts = _DEPTHS[depth]
        channels = parts.width(64 * _positive(width))
        self.stem = nn.Sequential(
            TupleLift(3, dim=1, **parts.options),
            parts.conv(3 * parts.algebra.size, channels, 7, stride=2),
            parts.norm(channels),
            parts.activation(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        for stage, count in enumerate(counts):
            inner = parts.width(64 * width * 2**stage)
            for i in range(count):
                blocks.append(block(parts, channels, inner, stride=2 if i == 0 and stage > 0 else 1))
                channels = inner * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = parts.logits(channels, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(input))).flatten(1))


class MobileNetV1(nn.Module):
    """MobileNet-v1 over an algebra: depthwise convolutions of single tuples, then 1 x 1 convolutions.

    Args:
        algebra, width, num_classes, bits, norm, activation, device, dtype: as in `ResNet`.

    Shape: (N, 3, H, W) to (N, num_classes).

    Raises:
        ValueError: a width that is not positive, an unknown norm or activation.

    Source: AlgebraNets, section 4.1 and Figure 2, after Howard et al. 2017 (Table 1 there).

    >>> import torch
    >>> MobileNetV1("M2R", width=0.25)(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 1000])
    """

    _LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

    def __init__(
        self,
        algebra: str | Algebra = "M2R",
        width: float = 1.0,
        num_classes: int = 1000,
        *,
        bits: int | None = None,
        norm: str = "batch",
        activation: str = "swish",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        parts = Parts(algebra, bits, norm, activation, device, dtype)
        size, channels = parts.algebra.size, parts.width(32 * _positive(width))
        layers: list[nn.Module] = [TupleLift(3, dim=1, **parts.options)]
        layers += [parts.conv(3 * size, channels, 3, stride=2), parts.norm(channels), parts.activation()]
        for outputs, stride in self._LAYERS:
            depthwise = parts.conv(channels, channels, 3, stride, groups=channels // size)
            layers += [depthwise, parts.norm(channels), parts.activation()]
            inputs, channels = channels, parts.width(outputs * width)
            layers += [parts.conv(inputs, channels, 1), parts.norm(channels), parts.activation()]
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = parts.logits(channels, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.pool(self.body(input)).flatten(1))
