"""Stop a training run and resume it, bit for bit: ``python examples/resume.py``."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import lognet
from lognet.optim import Madam

x, y = torch.randn(256, 16, generator=torch.Generator().manual_seed(1)), torch.arange(256) % 4


def start():
    """A model and its optimizer, as at the beginning of every run."""
    torch.manual_seed(0)
    model = lognet.wrap(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), bits=8)
    return model, Madam(model.parameters())


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def main(folder):
    """Whether 20 steps give the same codes as 10 steps, a stop and 10 more."""
    straight, optimizer = start()
    train(straight, optimizer, 20)

    model, optimizer = start()
    train(model, optimizer, 10)
    lognet.save(model, folder / "model.safetensors")  # packed as in memory
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")

    resumed, optimizer = start()  # another process, later
    lognet.load(resumed, folder / "model.safetensors")
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    train(resumed, optimizer, 10)
    return all(torch.equal(a, b) for a, b in zip(resumed.parameters(), straight.parameters(), strict=True))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print("the same to the bit:", main(Path(folder)))
