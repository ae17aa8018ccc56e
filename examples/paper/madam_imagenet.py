"""Madam on ImageNet with ResNet-50: rows of Tables 1 and 2 of Bernstein et al. 2020.

torchrun --nproc-per-node 8 examples/paper/madam_imagenet.py --data imagenet --out runs/in-12 --bits 12 --amp bf16
"""

from common.imagefolder import ImageNetRecipe
from common.loop import main
from common.optimizers import Preset
from common.rows import MadamRow
from lognet.models import ResNet


class MadamImageNet(MadamRow, ImageNetRecipe):
    """Madam on ImageNet with ResNet-50 (Bernstein et al. 2020, Tables 1 and 2)."""

    metric = "error"
    task = "imagenet"
    # Ours: the paper says neither batch nor epochs.
    defaults = {"batch": 256, "epochs": 90, "save_every": 2000}
    tiny = {"batch": 4, "epochs": 1, "width": 0.0625, "depth": 18, "side": 32, "workers": 0}
    presets = {
        "sgd": Preset(0.1, "plateau", {"momentum": 0.9, "weight_decay": 1e-4}),  # Table 1; the rest ours
        "adam": Preset(0.001, "plateau"),  # ours
    }

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--width", type=float, default=1.0, help="multiplier of all channels")
        parser.add_argument("--depth", type=int, choices=(18, 50), default=50)

    def build(self):
        """ResNet-50 over the reals with ReLU: 25,557,032 parameters for 1000 classes, as torchvision's."""
        classes = len(self.train.classes)
        return ResNet(self.args.depth, "R", self.args.width, classes, activation="relu")


if __name__ == "__main__":
    main(MadamImageNet)
