"""The character GRU of AlgebraNets, section 4.4."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import Algebra, AlgebraGRU, AlgebraLinear, TupleLift
from ..nn.checks import check_count
from .parts import Parts


class CharGRU(nn.Module):
    """One GRU layer, then linear readout layers, each with ReLU, a skip connection and a layer norm after it.

    Args:
        algebra: name or `Algebra`.
        hidden_size: real scalars, a multiple of A. The paper's Table 3 counts tuples. Default: 2048, or the multiple of
            A nearest to it.
        vocabulary: characters in, and logits out.
        layers: number of readout layers.
        bits: None for float parameters, or B for LogTensors.
        device, dtype: of all parameters.

    Shape: (time, batch) of indices, and hx (1, batch, hidden_size), to logits (time, batch, vocabulary) and the last hx.
    Characters are embedded as hidden_size / A real features, and lifted to tuples by "single linear layers from the
    input".

    Raises:
        ValueError: `hidden_size` is not a multiple of A.

    Source: AlgebraNets, section 4.4 and Table 3.

    >>> import torch
    >>> logits, h = CharGRU("H", hidden_size=16, vocabulary=10)(torch.zeros(7, 3, dtype=torch.long))
    >>> logits.shape, h.shape
    (torch.Size([7, 3, 10]), torch.Size([1, 3, 16]))
    """

    def __init__(
        self,
        algebra: str | Algebra = "M2R",
        hidden_size: int | None = None,
        vocabulary: int = 256,
        layers: int = 5,
        *,
        bits: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        parts = Parts(algebra, bits, device=device, dtype=dtype)
        check_count("layers", layers, least=0)
        hidden_size = parts.chosen("hidden_size", hidden_size, 2048)
        self.gru = AlgebraGRU(hidden_size, hidden_size, **parts.options)
        self.embedding = nn.Embedding(vocabulary, hidden_size // parts.algebra.size, **parts.like)
        self.lift = TupleLift(hidden_size // parts.algebra.size, **parts.options)
        self.readout = nn.ModuleList(AlgebraLinear(hidden_size, hidden_size, **parts.options) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size, **parts.like) for _ in range(layers))
        self.head = parts.logits(hidden_size, vocabulary)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, h = self.gru(self.lift(self.embedding(input)), hx)
        for layer, norm in zip(self.readout, self.norms, strict=True):
            x = norm(x + F.relu(layer(x)))
        return self.head(x), h
