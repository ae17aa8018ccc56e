"""The networks of MNIST-1D, an LSTM over characters, and the networks of the held-out tasks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1dNet(nn.Module):
    """The convolutional network published with MNIST-1D: three convolutions of stride 2, without norms."""

    def __init__(self, classes: int, channels: int = 25) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, channels, 5, stride=2, padding=1)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(5 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = x.unsqueeze(1)
        for layer in (self.conv1, self.conv2, self.conv3):
            h = F.relu(layer(h))
        return self.head(h.flatten(1))


def make_mlp(classes: int, inputs: int = 40, width: int = 100) -> nn.Sequential:
    """The fully connected network of MNIST-1D: 40-100-100-10."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
    )


class GRUNet(nn.Module):
    """A bidirectional GRU that reads one number at a time. The head gets its two last states."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.gru = nn.GRU(1, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.gru(x.unsqueeze(2))
        return self.head(torch.cat([out[:, -1, : self.width], out[:, 0, self.width :]], dim=1))


class CharLSTM(nn.Module):
    def __init__(self, symbols: int, embedding: int = 64, width: int = 128) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, embedding)
        self.lstm = nn.LSTM(embedding, width, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.symbol(x))[0])


def make_deep_mlp(classes: int, activation: Callable[[], nn.Module], norm: bool, width: int = 64) -> nn.Sequential:
    """Ten linear layers on the 64 pixels of a digit; `norm`: a LayerNorm before every activation but the first."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, width), activation()]
    for _ in range(8):
        layers += [nn.Linear(width, width), *([nn.LayerNorm(width)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def make_regressor(inputs: int = 10, width: int = 64) -> nn.Sequential:
    """10-64-64-64-1."""
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def make_autoencoder(pixels: int) -> nn.Sequential:
    """64-32-8-32-64. The code of eight numbers has no activation."""
    encoder = (nn.Flatten(), nn.Linear(pixels, 32), nn.ReLU(), nn.Linear(32, 8))
    return nn.Sequential(*encoder, nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, pixels))


class ResNet(nn.Module):
    """A stem and three residual blocks of two convolutions with BatchNorm, at one resolution."""

    def __init__(self, classes: int, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList(self._block(channels) for _ in range(3))
        self.head = nn.Linear(channels, classes)

    @staticmethod
    def _block(channels: int) -> nn.Sequential:
        conv = lambda: nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        norm = lambda: nn.BatchNorm2d(channels)
        return nn.Sequential(conv(), norm(), nn.ReLU(), conv(), norm())

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = F.relu(h + block(h))
        return self.head(h.mean((2, 3)))


class VisionTransformer(nn.Module):
    """Three pre-norm encoder layers of PyTorch on the sixteen 2 x 2 patches of a digit. The head gets their mean."""

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        self.patch = nn.Linear(4, width)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 2, stride=2).transpose(1, 2)
        return self.head(self.encoder(self.patch(patches) + self.position).mean(1))


class RowLSTM(nn.Module):
    """An LSTM that reads a digit row by row. The head gets its last state."""

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.flatten(1, 2))[0][:, -1])
