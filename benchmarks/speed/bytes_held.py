"""Bytes a parameter: the weights and the optimizer's state, read from the tensors after two steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

import lognet
from lognet.optim import Madam

from .measure import Row, Size

THEME = "Bytes a parameter"
BOUNDS = {(4, True): 2.2, (4, False): 1.7}  # with momentum, and without


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, width: int) -> float:
    """Bytes a parameter after two steps, without gradients."""
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, width)).square().mean().backward()
        optimizer.step()
    return lognet.held_bytes(model, optimizer) / sum(p.numel() for p in model.parameters())


def rows(size: Size) -> Iterator[Row]:
    width = size.model
    make = lambda: nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
    plain = make()
    adam = trained(plain, torch.optim.Adam(plain.parameters(), fused=True), width)
    for momentum in (True, False):
        for bits in (32, 16, 8, 4):
            model = lognet.wrap(make(), bits=8)
            options = {} if momentum else {"momentum": 0.0}
            value = trained(model, Madam(model.parameters(), state_bits=bits, **options), width)
            name = f"8 bits, state_bits={bits}{'' if momentum else ', no momentum'}"
            bound = BOUNDS.get((bits, momentum))
            yield Row(THEME, name, f"float32 with Adam: {adam:.2f}", value, bound, unit="bytes")
