r"""A small conditional GAN on the digits, and the distance of its pictures from real ones.

Both networks are perceptrons. The generator's loss is the non-saturating logistic one (Goodfellow et al. 2014). The distance
is the Fréchet distance to the held-out digits, in the penultimate features of a classifier trained once on the training half.
It takes each set of points as a normal distribution (Dowson and Landau 1982; Heusel et al. 2017):

.. math:: \|\mu_1 - \mu_2\|^2 + \mathrm{tr}(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lognet.sweep import ConvNet, Dataset, epoch_order

from .data import load

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


def moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of ``[n, d]`` points, in float64."""
    return points.double().mean(0), torch.cov(points.double().T).reshape(points.shape[1], points.shape[1])


def square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """The distance between two normal distributions, given as (mean, covariance)."""
    (mean1, covariance1), (mean2, covariance2) = first, second
    root = square_root(covariance1)
    mixed = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * mixed)
