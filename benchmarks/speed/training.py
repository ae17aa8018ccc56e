"""A whole step of training: forward, backward, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lognet
from lognet.optim import Madam

from .measure import Row, Size, compare, timed
from .networks import Transformer

THEME = "A whole step of training"


def step_of(model: nn.Module, optimizer: Any, tokens: Tensor) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()

    return step


def rows(size: Size) -> Iterator[Row]:
    length = min(256, size.tokens)
    tokens = torch.randint(256, (size.tokens // length, length + 1))
    plain = Transformer(size.model, 4)
    contenders = {"Adam": step_of(plain, torch.optim.Adam(plain.parameters(), fused=True), tokens)}
    cases: dict[str, dict[str, Any]] = {"": {}, ", no momentum": {"momentum": 0.0}, ", state_bits=4": {"state_bits": 4}}
    for name, options in cases.items():
        model = lognet.wrap(Transformer(size.model, 4), bits=8)
        contenders[name] = step_of(model, Madam(model.parameters(), **options), tokens)
    found = compare(contenders, "Adam", max(1, size.rounds // 2))
    against = f"the float32 model with fused Adam, width {size.model}, 4 layers, {size.tokens:,} tokens"
    for name in cases:
        yield timed(THEME, f"8 bits with Madam{name}", against, found[name], None if name else 1.03)
