"""Replace the layers of a trained model by fitted factored ones, then wrap it: ``python examples/compress_model.py``."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import lognet
from lognet.optim import Madam

digits = load_digits()
x, y = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1, torch.tensor(digits.target)


def train(model, steps):
    """Train in place; returns the accuracy on the last 300 digits."""
    optimizer = Madam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = torch.randint(1497, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    return float((model(x[1497:]).argmax(1) == y[1497:]).float().mean())


def main():
    """(accuracy, bytes) of the float model, and of the factored model in 8 bits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    found = [(train(model, 100), lognet.held_bytes(model))]
    model, report = lognet.compress(model, lognet.LowRank(rank=16), from_weights=True)
    lognet.wrap(model, bits=8)
    print(report)
    return [*found, (train(model, 60), lognet.held_bytes(model))]


if __name__ == "__main__":
    for name, (accuracy, size) in zip(("float", "compressed"), main(), strict=True):
        print(f"{name:11} accuracy {accuracy:.3f}, {size} bytes")
