"""Madam on a conditional GAN for CIFAR-10: rows of Tables 1 and 2 of Bernstein et al. 2020.

python examples/paper/madam_cgan.py --data cifar-10-batches-py --out runs/gan-12 --bits 12 --inception FILE.pt
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common.cifar import CifarRecipe
from common.frechet import Moments, frechet_distance, load_features
from common.gan import Discriminator, Generator
from common.loop import main
from common.optimizers import Preset
from common.rows import MadamRow


class MadamGAN(MadamRow, CifarRecipe):
    """Madam on a conditional GAN for CIFAR-10 (Bernstein et al. 2020, Tables 1 and 2).

    Both networks have an optimizer of their own, with the same options. The hinge loss; --critic-steps steps of the
    discriminator for one of the generator. FID, of as many generated pictures as there are training pictures (50,000)
    against these, needs --inception; without it the run leaves sample pictures only.
    """

    metric = "fid"
    task = "cgan"
    # Ours: the paper gives no sizes, loss, batch or length; a GAN's loss has no plateau to decay the rate at.
    defaults = {"batch": 64, "steps": 250_000, "epochs": None, "eval_every": 10_000, "schedule": "constant"}
    tiny = {"batch": 4, "steps": 4, "eval_every": 2, "width": 4, "noise": 4, "critic_steps": 2}
    presets = {
        "adam": Preset(0.0001, "constant", {"betas": (0.0, 0.999)}),  # the rate: Table 1; betas ours
        "sgd": Preset(0.01, "constant"),  # ours: "SGD obtained FID > 30"
    }
    crop, padding = 32, 0

    def __init__(self, args, place):
        super().__init__(args, place)
        self.plan(1, args.eval_every)
        self.features = load_features(args.inception, place.device) if args.inception else None
        self.steps_done = 0
        self.real = None

    @classmethod
    def add_options(cls, parser) -> None:
        parser.add_argument("--inception", type=Path, help="TorchScript network for FID (common/frechet.py)")
        parser.add_argument(
            "--width", type=int, default=256, help="channels of the generator; half in the discriminator"
        )
        parser.add_argument("--noise", type=int, default=128)
        parser.add_argument("--critic-steps", type=int, default=5)
        parser.add_argument("--eval-every", type=int, help="steps between evaluations")

    def build(self):
        """Generator and discriminator."""
        generator = Generator(self.classes, self.args.width, self.args.noise)
        return nn.ModuleList([generator, Discriminator(self.classes, self.args.width // 2)])

    def parts(self, model):
        return list(model)

    def batches(self, first):
        for step, batch in enumerate(super().batches(first), first):
            yield batch, (step + 1) % self.args.critic_steps == 0

    def update(self, networks, optimizers, batch):
        """A step of the discriminator and, when it is due, one of the generator; the loss is the discriminator's."""
        (pictures, labels), generate = batch
        generator, discriminator = networks
        with self.place.autocast():
            with torch.no_grad():
                made, of = self._made(generator, len(labels))
            both = torch.cat([2 * self.unit(pictures) - 1, made]), torch.cat([labels, of])
            real, fake = discriminator(*both).chunk(2)
            loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        self._step(optimizers[1], loss)
        if generate:
            bare = getattr(discriminator, "module", discriminator).requires_grad_(False)  # no gradients to be averaged
            with self.place.autocast():
                gain = bare(*self._made(generator, len(labels))).mean()
            self._step(optimizers[0], -gain)
            bare.requires_grad_(True)
        return loss.detach()

    @staticmethod
    def _step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def unit(self, pictures):
        """uint8 to 0 .. 1."""
        return pictures.float() / 255

    def _made(self, generator, count):
        labels = torch.randint(self.classes, (count,), device=self.place.device)
        return generator(torch.randn(count, self.args.noise, device=self.place.device), labels), labels

    def evaluate(self, model, final):
        """Sample pictures, and FID where there is a network for it."""
        torch.manual_seed(self.args.seed + self.place.rank)  # the same noise at every evaluation
        if self.place.main:
            self._sample(model[0], self.args.out / "samples.png")
        if self.features is None:
            return {}
        if self.real is None:
            self.real = self._moments(iter(self.data.train_x[self.place.rank :: self.place.world].split(100)))
        count = len(self.data.train_x) // self.place.world
        sizes = [min(100, count - i) for i in range(0, count, 100)]
        made = (self._bytes(self._made(model[0], size)[0]) for size in sizes)
        return {"fid": frechet_distance(self.real, self._moments(made))}

    def _moments(self, pictures):
        moments = Moments()
        for x in pictures:
            moments.add(self.features(x.to(self.place.device), return_features=True))
        parts = self.place.gather((moments.count, moments.first.cpu(), moments.second.cpu()))
        moments.count, moments.first, moments.second = (sum(values) for values in zip(*parts, strict=True))
        return moments.normal()

    @staticmethod
    def _bytes(pictures):
        return ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def _sample(self, generator, path):
        """A grid: a row for each class."""
        labels = torch.arange(self.classes, device=self.place.device).repeat_interleave(8)
        pictures = generator(torch.randn(len(labels), self.args.noise, device=self.place.device), labels)
        grid = self._bytes(pictures).view(self.classes, 8, 3, 32, 32).permute(0, 3, 1, 4, 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid.reshape(self.classes * 32, 8 * 32, 3).cpu().numpy()).save(path)


if __name__ == "__main__":
    main(MadamGAN)
