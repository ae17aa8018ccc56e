"""The precision sweep in one page: handwritten digits, FP32 Adam, FP32 Madam, and Madam on 12, 10 and 8 bits.

    python examples/precision_sweep.py

The full version, with a transformer, several seeds, curves and a report: ``python -m lognet.sweep``.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import lognet
from lognet.optim import Madam

STEPS, BATCH = 200, 64

digits = load_digits()
x = torch.tensor(digits.data, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
y = torch.tensor(digits.target)
train, test = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split([1200, 597])


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 4, 10),
    )  # fmt: skip


def run(name, bits=None):
    """Train one contender; every one starts from the same weights and sees the same batches."""
    torch.manual_seed(0)
    model = conv_net()
    if name == "Adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    else:
        if bits is not None:
            lognet.wrap(model, bits=bits)  # in place: no float copy of a weight is kept
        optimizer = Madam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.defaults["lr"], STEPS, cycle_momentum=False)
    for _ in range(STEPS):
        batch = train[torch.randint(len(train), (BATCH,))]
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean()
    count = sum(p.numel() for p in model.parameters())
    return 100 * float(accuracy), lognet.held_bytes(model) / count, lognet.held_bytes(model, optimizer) / count


if __name__ == "__main__":
    print(f"{'':14}{'accuracy':>10}{'weights':>15}{'with optimizer':>18}")
    for name, bits in [("Adam", None), ("Madam", None), ("Madam", 12), ("Madam", 10), ("Madam", 8)]:
        accuracy, weights, training = run(name, bits)
        label = f"FP32 {name}" if bits is None else f"{bits}-bit {name}"
        print(f"{label:14}{accuracy:9.2f}%{weights:9.2f} B/par.{training:12.2f} B/par.")
