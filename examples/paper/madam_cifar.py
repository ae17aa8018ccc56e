"""Madam on CIFAR-10 and CIFAR-100 with ResNet-18: rows of Tables 1 and 2 of Bernstein et al. 2020.

python examples/paper/madam_cifar.py --data cifar-10-batches-py --out runs/c10-8 --bits 8
"""

from common.cifar import CifarRecipe
from common.loop import main
from common.optimizers import Preset
from common.rows import MadamRow
from lognet.sweep import ResNet18


class MadamCifar(MadamRow, CifarRecipe):
    """Madam on CIFAR-10 and CIFAR-100 with ResNet-18 (Bernstein et al. 2020, Tables 1 and 2)."""

    metric = "error"
    # Ours: the paper says neither. Crops and mirrors are the usual ones.
    defaults = {"batch": 128, "epochs": 200, "patience": 10}
    tiny = {"batch": 4, "epochs": 2, "width": 2, "workers": 0}
    presets = {
        "adam": Preset(0.001, "plateau"),  # Table 1, CIFAR-10, baseline eta
        "sgd": Preset(0.1, "plateau", {"momentum": 0.9, "weight_decay": 5e-4}),  # Table 1, CIFAR-100; the rest ours
    }

    @property
    def task(self) -> str:
        return f"cifar{self.classes}"

    @classmethod
    def add_options(cls, parser) -> None:
        parser.add_argument("--classes", type=int, choices=(10, 100), default=10, help="CIFAR-10 or CIFAR-100")
        parser.add_argument("--width", type=int, default=64, help="channels of the first stage")

    def build(self):
        """The ResNet-18 usual for 32 x 32 pictures: a 3 x 3 stem, no first pooling. The paper says "Resnet18"."""
        return ResNet18(self.classes, self.args.width)


if __name__ == "__main__":
    main(MadamCifar)
