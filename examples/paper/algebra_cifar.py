"""AlgebraNets on CIFAR-10: Table 6 of Hoffmann et al. 2020, appendix D.

python examples/paper/algebra_cifar.py --data cifar-10-batches-py --out runs/m2r --algebra M2R
"""

from common.cifar import CifarRecipe
from common.loop import main
from common.optimizers import Preset
from common.rows import AlgebraRow
from lognet.models import CifarResNet


class AlgebraCifar(AlgebraRow, CifarRecipe):
    """AlgebraNets on CIFAR-10 (Hoffmann et al. 2020, Table 6)."""

    metric = "accuracy"
    papers_optimizer = None  # appendix D names none
    crop, padding = 24, 0  # "We train with 24 x 24 random crops and evaluate on 32 x 32 images"
    # Ours: appendix D gives no optimizer, batch, length or regularisation.
    defaults = {"optimizer": "sgd", "batch": 128, "epochs": 200}
    tiny = {"batch": 4, "epochs": 2, "width": 8, "workers": 0}
    presets = {
        "sgd": Preset(0.1, "cosine", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}),
        "adam": Preset(0.001, "cosine"),
    }

    @property
    def row_key(self) -> str:
        return f"algebra/cifar10/{self.args.algebra}/{self.args.norm}"

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--norm", choices=("batch", "whitening"), default="batch", help="BN or W of Table 6")
        parser.add_argument("--width", type=int, help="real channels of the first stage; the paper's 128 by default")

    def build(self):
        """128, 256 and 512 real channels (appendix D); the block counts, which it does not give, are lognet's."""
        return CifarResNet(self.args.algebra, self.classes, self.args.width, norm=self.args.norm)


if __name__ == "__main__":
    main(AlgebraCifar)
