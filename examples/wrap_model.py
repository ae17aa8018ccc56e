"""A convolutional net trained in 8 bits, with float norms and a wider output layer: ``python examples/wrap_model.py``."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import lognet
from lognet.optim import Madam

digits = load_digits()
x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(digits.target)


def train(steps=120):
    """The trained model, its optimizer, and its accuracy on the last 300 digits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 16, 10),
    )  # fmt: skip
    lognet.wrap(model, bits=8, exclude=nn.BatchNorm2d, bits_for={"5.*": 12})  # in place, before the optimizer is made
    optimizer = Madam(model.parameters(), state_bits=4)  # its two averages have 4 bits each
    for _ in range(steps):
        batch = torch.randint(1497, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    model.eval()
    return model, optimizer, float((model(x[1497:]).argmax(1) == y[1497:]).float().mean())


if __name__ == "__main__":
    model, optimizer, accuracy = train()
    print(lognet.summary(model, optimizer))
    print(f"accuracy {accuracy:.3f}; {lognet.held_bytes(model)} bytes of weights")
    lognet.unwrap(model)  # float parameters again, of the same values
