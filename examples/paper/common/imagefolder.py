"""ImageNet as folders of JPEG files, one folder a class, decoded by Pillow.

This file uses Pillow, because the wheels of torchvision work only with the torch build that they were made for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .recipe import PictureRecipe

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the usual values for ImageNet
SUFFIXES = (".jpeg", ".jpg")


class ImageFolder(Dataset):
    """The pictures of ``folder/CLASS/*.JPEG``; classes are numbered in the order of their names.

    An item (index, key) is a picture, uint8 (3, side, side), and its label. A key draws a random crop of 8 to 100 %
    of the area, with sides of a ratio from 3/4 to 4/3, mirrored half the time. Without a key (None) the picture is the
    centre crop after its short side was scaled to side * 256 / 224.
    """

    def __init__(self, folder: Path, side: int, classes: list[str] | None = None) -> None:
        if not folder.is_dir():
            raise SystemExit(
                f"error: there is no folder {folder}; ImageNet has train/CLASS/*.JPEG and val/CLASS/*.JPEG"
            )
        self.side = side
        self.classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        if not self.classes or (classes is not None and self.classes != classes):
            raise SystemExit(f"error: {folder} must have a folder for each class, the same in train and val")
        self.files: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes):
            found = sorted(f for f in os.listdir(folder / name) if f.lower().endswith(SUFFIXES))
            self.files += [(folder / name / file, label) for file in found]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: tuple[int, int | None]) -> tuple[Tensor, int]:
        index, key = item
        path, label = self.files[index]
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        if key is None:
            box, mirrored = _middle(*picture.size), False
        else:
            box, mirrored = _random_crop(*picture.size, np.random.default_rng(key))
        picture = picture.resize((self.side, self.side), Image.Resampling.BILINEAR, box)
        if mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1), label


def _middle(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height) * 224 / 256
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def _random_crop(
    width: int, height: int, random: np.random.Generator
) -> tuple[tuple[float, float, float, float], bool]:
    mirrored = bool(random.random() < 0.5)
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = random.uniform(0, width - across), random.uniform(0, height - down)
            return (left, top, left + across, top + down), mirrored
    return _middle(width, height), mirrored


class ImageNetRecipe(PictureRecipe):
    """Classify ImageNet: cross-entropy, top-1 on the validation set. --data holds the folders ``train`` and ``val``."""

    side = 224

    def __init__(self, args, place) -> None:
        super().__init__(args, place)
        self.side = args.side
        self.mean, self.deviation = (torch.tensor(v, device=place.device).view(3, 1, 1) for v in (MEAN, DEVIATION))
        self.train = ImageFolder(args.data / "train", self.side)
        self.val = ImageFolder(args.data / "val", self.side, self.train.classes)
        self.per_epoch = len(self.train) // args.batch
        if not self.per_epoch:
            raise SystemExit(f"error: --batch {args.batch} is more than the {len(self.train)} pictures of {args.data}")
        self.plan(self.per_epoch)

    @classmethod
    def add_options(cls, parser) -> None:
        parser.add_argument("--side", type=int, default=224, help="pixels")

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(pictures uint8, labels) from step `first` on; read ahead by --workers processes."""
        epoch, within = divmod(first, self.per_epoch)
        size = self.args.batch
        while True:
            order = torch.randperm(len(self.train), generator=self.generator(1, epoch)).tolist()
            keys = [(i, (self.args.seed * 100_003 + epoch) * 10_000_019 + i) for i in order]
            shares = [
                keys[i * size : (i + 1) * size][self.place.rank :: self.place.world]
                for i in range(within, self.per_epoch)
            ]
            yield from self._loader(self.train, shares)
            epoch, within = epoch + 1, 0

    def _loader(self, data: ImageFolder, shares: list[list[tuple[int, int | None]]]) -> Iterator[tuple[Tensor, Tensor]]:
        workers, pinned = self.args.workers, self.place.device.type == "cuda"
        for x, y in DataLoader(data, batch_sampler=shares, num_workers=workers, pin_memory=pinned):
            yield x.to(self.place.device, non_blocking=True), y.to(self.place.device, non_blocking=True)

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        size = self.args.batch
        mine = [(i, None) for i in range(self.place.rank, len(self.val), self.place.world)]
        shares = [mine[i : i + size] for i in range(0, len(mine), size)]
        return self.top1(model, self._loader(self.val, shares), len(self.val))
