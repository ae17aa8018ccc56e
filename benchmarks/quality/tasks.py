"""The tasks: data, a network, a metric on held-out data, and how long to train."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lognet
from lognet.sweep import CONTEXT, ConvNet, Dataset, Transformer, epoch_order, text_windows

from . import gan
from .networks import (
    CharLSTM,
    Conv1dNet,
    GRUNet,
    ResNet,
    RowLSTM,
    VisionTransformer,
    make_autoencoder,
    make_deep_mlp,
    make_mlp,
    make_regressor,
)

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Metric:
    name: str
    higher_is_better: bool
    decimals: int

    def worse(self, value: float, than: float) -> float:
        """How much worse `value` is; negative if it is better."""
        return than - value if self.higher_is_better else value - than

    def error(self, value: float) -> float:
        """The metric as an error. An accuracy of 100 % counts as an error of 0.1 %."""
        return max(100 - value, 0.1) if self.higher_is_better else value


ACCURACY = Metric("accuracy, %", True, 2)
BITS_PER_CHARACTER = Metric("bits per character", False, 3)
FRECHET = Metric("Fréchet distance", False, 2)
UNEXPLAINED = Metric("squared error, % of variance", False, 3)


def examples(data: Dataset, batch: int, order: torch.Generator) -> Batches:
    """Endless batches of shuffled examples."""
    while True:
        for chosen in epoch_order(len(data.train_x), batch, order):
            yield data.train_x[chosen], data.train_y[chosen]


def windows(data: Dataset, batch: int, order: torch.Generator) -> Batches:
    """Endless batches of random windows of a text, and the same windows shifted by one character."""
    window = torch.arange(CONTEXT + 1)
    while True:
        starts = torch.randint(len(data.train_x) - CONTEXT, (batch,), generator=order)
        cut = data.train_x[starts[:, None] + window]
        yield cut[:, :-1], cut[:, 1:]


def update(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, random: torch.Generator) -> float:
    """One step on the cross entropy. Returns the loss before the step, in nats. If it is not finite, nothing moves."""
    return descend(F.cross_entropy(net(x).flatten(0, -2), y.flatten()), optimizer)


def update_regression(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, random: torch.Generator
) -> float:
    """One step on the mean squared error. Returns the error before the step. If it is not finite, nothing moves."""
    return descend(F.mse_loss(net(x), y), optimizer)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    value = float(loss.detach())
    if math.isfinite(value):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return value


@torch.no_grad()
def accuracy(net: nn.Module, data: Dataset, random: torch.Generator) -> float:
    """Accuracy on the held-out examples, in percent."""
    scores = torch.cat([net(x) for x in data.test_x.split(500)])
    return 100 * float((scores.argmax(1) == data.test_y).double().mean()) if bool(scores.isfinite().all()) else math.nan


@torch.no_grad()
def unexplained(net: nn.Module, data: Dataset, random: torch.Generator) -> float:
    """The mean squared error over the variance of the held-out targets about their means, in percent."""
    targets = data.test_y.double()
    error = (torch.cat([net(x) for x in data.test_x.split(500)]).double() - targets).square().mean()
    return 100 * float(error / (targets - targets.mean(0)).square().mean())


@torch.no_grad()
def bits_per_character(net: nn.Module, data: Dataset, random: torch.Generator) -> float:
    """Bits per character of the held-out text, in side-by-side windows."""
    x, y = text_windows(data.test_x)
    nats = [
        F.cross_entropy(net(a).flatten(0, -2), b.flatten(), reduction="sum")
        for a, b in zip(x.split(64), y.split(64), strict=True)
    ]
    return float(torch.stack(nats).double().sum()) / y.numel() / math.log(2)


@dataclass(frozen=True)
class Task:
    """One row of the tables."""

    name: str
    title: str
    data: str
    steps: int
    batch: int
    build: Callable[[Dataset], nn.Module]
    """Makes the float network with torch's global random numbers."""
    metric: Metric = ACCURACY
    batches: Callable[[Dataset, int, torch.Generator], Batches] = examples
    update: Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor, torch.Generator], float] = update
    evaluate: Callable[[nn.Module, Dataset, torch.Generator], float] = accuracy
    cheap: bool = False
    """Whether to train it fifty times as long too."""
    held_out: bool = False
    """Whether the defaults were chosen without this task."""


def text_task(name: str, title: str, build: Callable[[Dataset], nn.Module], steps: int = 600) -> Task:
    return Task(name, title, "text", steps, 16, build, BITS_PER_CHARACTER, windows, evaluate=bits_per_character)


def held_out(name: str, title: str, build: Callable[[Dataset], nn.Module], steps: int, data: str = "digits") -> Task:
    """A held-out task: a classifier of the digits."""
    return Task(name, f"digits, {title}", data, steps, 64, build, held_out=True)


def held_out_regression(name: str, title: str, data: str, build: Callable[[Dataset], nn.Module], steps: int) -> Task:
    return Task(
        name, title, data, steps, 64, build, UNEXPLAINED, update=update_regression, evaluate=unexplained, held_out=True
    )


def deep_mlp(data: Dataset) -> nn.Module:
    return make_deep_mlp(data.classes, nn.ReLU, norm=False)


def deep_norm_mlp(data: Dataset) -> nn.Module:
    return make_deep_mlp(data.classes, nn.GELU, norm=True)


def quaternions(data: Dataset) -> nn.Module:
    net = ConvNet(data.classes)
    lognet.algebraize(net, "H", exclude="head", init="glorot")  # ten outputs are not a multiple of four
    return net


def factored(data: Dataset, how: lognet.PHM | lognet.Kronecker) -> nn.Module:
    net = Transformer(data.classes, CONTEXT)
    lognet.compress(net, {"blocks.*": how}, min_parameters=1)
    return net


TASKS = {
    task.name: task
    for task in (
        Task("digits", "digits, conv net", "digits", 400, 64, lambda d: ConvNet(d.classes), cheap=True),
        Task("digits-H", "digits, quaternion conv net", "digits", 400, 64, quaternions),
        Task("mnist1d-conv", "MNIST-1D, conv net", "mnist1d", 1200, 100, lambda d: Conv1dNet(d.classes), cheap=True),
        Task("mnist1d-mlp", "MNIST-1D, MLP", "mnist1d", 1200, 100, lambda d: make_mlp(d.classes), cheap=True),
        Task("mnist1d-gru", "MNIST-1D, GRU", "mnist1d", 800, 100, lambda d: GRUNet(d.classes)),
        text_task("text", "text, transformer", lambda d: Transformer(d.classes, CONTEXT)),
        text_task("text-lstm", "text, LSTM", lambda d: CharLSTM(d.classes), steps=500),
        text_task("text-PHM4", "text, transformer, PHM n = 4", lambda d: factored(d, lognet.PHM(4))),
        text_task("text-K4", "text, transformer, Kronecker rank 4", lambda d: factored(d, lognet.Kronecker(4))),
        Task(
            "digits-gan",
            "digits, conditional GAN",
            "digits",
            1500,
            64,
            lambda d: gan.GAN(d.classes),
            FRECHET,
            update=gan.update,
            evaluate=gan.evaluate,
        ),
        held_out("deep-mlp", "MLP of ten layers", deep_mlp, 800),
        held_out("deep-mlp-raw", "MLP of ten layers, pixels 0 to 1", deep_mlp, 800, "digits-raw"),
        held_out("deep-norm-mlp", "ten layers, LayerNorm", deep_norm_mlp, 500),
        held_out("deep-norm-mlp-raw", "ten layers, LayerNorm, pixels 0 to 1", deep_norm_mlp, 500, "digits-raw"),
        held_out("resnet", "residual net, BatchNorm", lambda d: ResNet(d.classes), 300),
        held_out("vit", "vision transformer", lambda d: VisionTransformer(d.classes), 500),
        held_out("lstm-rows", "LSTM over rows", lambda d: RowLSTM(d.classes), 500),
        held_out("linear", "softmax regression", lambda d: nn.Sequential(nn.Flatten(), nn.Linear(64, d.classes)), 500),
        held_out_regression(
            "autoencoder", "digits, autoencoder", "pictures", lambda d: make_autoencoder(d.classes), 1200
        ),
        held_out_regression("friedman", "Friedman's function, MLP", "friedman", lambda d: make_regressor(), 1000),
    )
}
