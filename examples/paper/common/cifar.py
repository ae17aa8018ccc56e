"""CIFAR-10 and CIFAR-100 in their python version, as batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lognet.sweep import SweepError, crop_and_flip, epoch_order, load_cifar10, load_cifar100

from .recipe import PictureRecipe


class CifarRecipe(PictureRecipe):
    """Classify CIFAR pictures: cross-entropy, random crops mirrored half the time, top-1 on the test set.

    --data is the folder of the unpacked archive, ``cifar-10-batches-py`` or ``cifar-100-python``, or the folder
    that contains it. The files are pickles. The reader admits only arrays and containers, so a file cannot run code.
    """

    classes = 10
    crop, padding = 32, 4
    """Side of the training crops, and the zeros added on each side of a picture before cropping."""

    def __init__(self, args, place) -> None:
        super().__init__(args, place)
        self.classes = getattr(args, "classes", self.classes)
        load = {10: load_cifar10, 100: load_cifar100}[self.classes]
        self.data = read(load, args.data)
        self.plan(max(1, len(self.data.train_x) // args.batch))
        pixels = self.data.train_x.to(torch.float32) / 255
        self.mean = pixels.mean((0, 2, 3), keepdim=True).to(place.device)
        self.deviation = pixels.std((0, 2, 3), keepdim=True).to(place.device)

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(pictures uint8, labels) from step `first` on. Every epoch has a new order, without an incomplete last batch."""
        per_epoch = max(1, len(self.data.train_x) // self.args.batch)
        step = first
        while True:
            epoch, within = divmod(step, per_epoch)
            for chosen in epoch_order(len(self.data.train_x), self.args.batch, self.generator(1, epoch))[within:]:
                x = crop_and_flip(self.data.train_x[chosen], self.generator(2, step), self.crop, self.padding)
                mine = slice(self.place.rank, None, self.place.world)
                yield x[mine].to(self.place.device), self.data.train_y[chosen][mine].to(self.place.device)
                step += 1

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        mine = slice(self.place.rank, None, self.place.world)
        pairs = zip(self.data.test_x[mine].split(500), self.data.test_y[mine].split(500), strict=True)
        return self.top1(model, pairs, len(self.data.test_y))


def read(load, folder: Path):
    """A CIFAR data set. An unusable folder ends the run with a message of one line."""
    try:
        return load(folder)
    except SweepError as error:
        raise SystemExit(f"error: {error}") from None
