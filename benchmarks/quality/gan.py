"""A small conditional GAN on the digits, and the distance of its pictures from real ones.

Both networks are perceptrons. The generator's loss is the non-saturating logistic one (Goodfellow et al. 2014). The distance
is the Fréchet distance to the held-out digits, in the penultimate features of a classifier trained once on the training half.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lognet.sweep import ConvNet, Dataset, epoch_order

from .data import load
from .frechet import frechet_distance, moments

NOISE = 32
WIDTH = 128
CLASSIFIER_STEPS = 400
SAMPLES_FOR_EACH = 2  # generated pictures for every held-out one, of its class


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    leaky = lambda: nn.LeakyReLU(0.2)
    return nn.Sequential(nn.Linear(inputs, WIDTH), leaky(), nn.Linear(WIDTH, WIDTH), leaky(), nn.Linear(WIDTH, outputs))


class GAN(nn.Module):
    """Generator and discriminator in one module, for one optimizer; the class is one-hot beside the other input."""

    def __init__(self, classes: int, pixels: int = 64) -> None:
        super().__init__()
        self.classes = classes
        self.generator = perceptron(NOISE + classes, pixels)
        self.discriminator = perceptron(pixels + classes, 1)

    def generate(self, y: Tensor, random: torch.Generator) -> Tensor:
        z = torch.randn(len(y), NOISE, generator=random)
        return self.generator(torch.cat([z, self.one_hot(y)], dim=1))

    def score(self, pictures: Tensor, y: Tensor) -> Tensor:
        """The logit of being real."""
        return self.discriminator(torch.cat([pictures.flatten(1), self.one_hot(y)], dim=1))

    def one_hot(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.classes).float()


def update(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, random: torch.Generator) -> float:
    """One step of the discriminator, then one of the generator. Returns the sum of both losses.

    The optimizer holds the parameters of both. Parameters without a gradient do not move.
    """
    assert isinstance(net, GAN)
    with torch.no_grad():
        fake = net.generate(y, random)
    optimizer.zero_grad()
    against = F.softplus(-net.score(x, y)).mean() + F.softplus(net.score(fake, y)).mean()
    against.backward()
    optimizer.step()
    optimizer.zero_grad()
    fooling = F.softplus(-net.score(net.generate(y, random), y)).mean()
    fooling.backward()
    net.discriminator.zero_grad()  # the gradient went through it
    optimizer.step()
    return float(against.detach() + fooling.detach())


@cache
@torch.enable_grad()
def classifier() -> ConvNet:
    """The classifier that measures. It is trained once in each process, always with the same seed."""
    data = load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ConvNet(data.classes)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    order = torch.Generator().manual_seed(0)
    done = 0
    while done < CLASSIFIER_STEPS:
        for chosen in epoch_order(len(data.train_x), 64, order)[: CLASSIFIER_STEPS - done]:
            optimizer.zero_grad()
            F.cross_entropy(net(data.train_x[chosen]), data.train_y[chosen]).backward()
            optimizer.step()
            done += 1
    return net.eval()


@torch.no_grad()
def features(pictures: Tensor) -> Tensor:
    """The inputs of the classifier's last layer."""
    return classifier().features(pictures.view(-1, 1, 8, 8)).flatten(1)


@torch.no_grad()
def evaluate(net: nn.Module, data: Dataset, random: torch.Generator) -> float:
    """The Fréchet distance between generated and held-out digits, with equal numbers in each class."""
    assert isinstance(net, GAN)
    fake = net.generate(data.test_y.repeat(SAMPLES_FOR_EACH), random)
    if not bool(fake.isfinite().all()):
        return float("nan")  # no eigenvalues of that
    return frechet_distance(moments(features(fake)), moments(features(data.test_x)))
