"""The networks that the sweep does not have: those of MNIST-1D, and an LSTM over characters."""

from __future__ import annotations

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
    """A bidirectional GRU that reads one number at a time; its two last states go to the head."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.gru = nn.GRU(1, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.gru(x.unsqueeze(2))
        return self.head(torch.cat([out[:, -1, : self.width], out[:, 0, self.width :]], dim=1))


class CharLSTM(nn.Module):
    """An LSTM over symbols."""

    def __init__(self, symbols: int, embedding: int = 64, width: int = 128) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, embedding)
        self.lstm = nn.LSTM(embedding, width, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.symbol(x))[0])
