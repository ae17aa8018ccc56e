"""A class-conditional GAN for 32 x 32 pictures: residual blocks, spectral norm and a projection discriminator.

The architecture is ours, after Miyato et al. 2018 and Miyato and Koyama 2018. Bernstein et al. 2020 says only "cGAN".
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class _ConditionalNorm(nn.Module):
    """Batch norm with a gain and a bias for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.norm(x) * self.gain(y)[:, :, None, None] + self.bias(y)[:, :, None, None]


class _Up(nn.Module):
    """Norm, ReLU, convolution, twice, at twice the size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _ConditionalNorm(channels, classes), _ConditionalNorm(channels, classes)
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, y)), scale_factor=2.0))
        return self.conv2(F.relu(self.norm2(h, y))) + self.shortcut(F.interpolate(x, scale_factor=2.0))


class Generator(nn.Module):
    """Pictures (N, 3, 32, 32) in -1 .. 1 of noise (N, `noise`) and labels (N)."""

    def __init__(self, classes: int, width: int = 256, noise: int = 128) -> None:
        super().__init__()
        self.noise, self.classes, self.width = noise, classes, width
        self.start = nn.Linear(noise, 16 * width)
        self.blocks = nn.ModuleList(_Up(width, classes) for _ in range(3))
        self.norm, self.end = nn.BatchNorm2d(width), nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.start(z).view(-1, self.width, 4, 4)
        for block in self.blocks:
            x = block(x, y)
        return self.end(F.relu(self.norm(x))).tanh()


class _Down(nn.Module):
    """ReLU, convolution, twice; at half the size where `halving`."""

    def __init__(self, inputs: int, channels: int, halving: bool, first: bool = False) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(inputs, channels, 3, 1, 1))
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, 1, 1))
        self.shortcut = spectral_norm(nn.Conv2d(inputs, channels, 1)) if halving else nn.Identity()
        self.halving, self.first = halving, first

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        shortcut = self.shortcut(x)
        return F.avg_pool2d(h, 2) + F.avg_pool2d(shortcut, 2) if self.halving else h + shortcut


class Discriminator(nn.Module):
    """Scores (N) of pictures (N, 3, 32, 32) and labels (N): linear in the features, and their product with the class."""

    def __init__(self, classes: int, width: int = 128) -> None:
        super().__init__()
        shapes = [(3, width, True, True), (width, width, True), (width, width, False), (width, width, False)]
        self.blocks = nn.Sequential(*(_Down(*shape) for shape in shapes))
        self.score = spectral_norm(nn.Linear(width, 1))
        self.label = spectral_norm(nn.Embedding(classes, width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.relu(self.blocks(x)).sum((2, 3))
        return self.score(h).squeeze(1) + (self.label(y) * h).sum(1)
