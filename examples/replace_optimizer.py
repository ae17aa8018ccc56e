"""Madam instead of torch.optim.Adam, on float weights: ``python examples/replace_optimizer.py``."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from lognet.optim import Madam

digits = load_digits()
x, y = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1, torch.tensor(digits.target)


def train(make_optimizer, steps=200):
    """Accuracy on the last 300 digits. Weights and batches are the same every time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = make_optimizer(model.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = torch.randint(1497, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    return float((model(x[1497:]).argmax(1) == y[1497:]).float().mean())


if __name__ == "__main__":
    print(f"Adam:  {train(lambda params: torch.optim.Adam(params, lr=0.003)):.3f}")
    print(f"Madam: {train(Madam):.3f}")  # default lr: it is a relative change, so Adam's lr does not apply
