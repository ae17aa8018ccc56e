"""Plain training loops of torch: accumulation, autocast, `GradScaler`, gradient checkpointing, at 8 bits."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint_sequential

import lognet
from clients.curves import assert_tracks
from lognet.optim import Madam

digits = load_digits()
IMAGES, LABELS = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(digits.target)


def network(bits):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip
    return model if bits is None else lognet.wrap(model, bits=bits)


def train(bits, steps=30, accumulate=1, dtype=None, scaled=False, checkpointed=False):
    model = network(bits)
    optimizer = Madam(model.parameters(), lr=0.1, warmup=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    draws = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        total = 0.0
        optimizer.zero_grad()
        for _ in range(accumulate):
            batch = torch.randint(1500, (64 // accumulate,), generator=draws)
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                x = IMAGES[batch]
                out = checkpoint_sequential(model, 3, x, use_reentrant=False) if checkpointed else model(x)
                loss = cross_entropy(out.float(), LABELS[batch]) / accumulate
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.step(optimizer)
        scaler.update()
        losses.append(total)
    return losses, model


WAYS = {
    "plain": {},
    "accumulated": {"accumulate": 4},
    "bf16": {"dtype": torch.bfloat16},
    "scaled": {"dtype": torch.float16, "scaled": True},
    "checkpointed": {"checkpointed": True},
}


@pytest.mark.parametrize("way", list(WAYS))
def test_8_bits_track_float32(way):
    curves = [train(bits, **WAYS[way])[0] for bits in (8, None)]
    assert_tracks(*curves, falls_by=0.4, within=0.03)


def test_checkpointing_and_scaling_by_powers_of_two_change_nothing():
    plain = train(8, 5)
    for way in ({"checkpointed": True}, {"scaled": True}):
        other = train(8, 5, **way)
        assert other[0] == plain[0]
        assert all(
            torch.equal(a.exponent, b.exponent)
            for a, b in zip(plain[1].parameters(), other[1].parameters(), strict=True)
        )
