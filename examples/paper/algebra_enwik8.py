"""AlgebraNets on enwik8 with Transformer-XL: Table 2 of Hoffmann et al. 2020, section 4.3.

torchrun --nproc-per-node 8 examples/paper/algebra_enwik8.py --data enwik8 --out runs/xl-m2r --algebra M2R --amp bf16
"""

from common import enwik8
from common.language import LanguageRecipe
from common.loop import main
from common.optimizers import Preset
from common.rows import AlgebraRow
from lognet.models import TransformerXL


class AlgebraEnwik8(AlgebraRow, LanguageRecipe):
    """AlgebraNets on enwik8 with Transformer-XL (Hoffmann et al. 2020, Table 2)."""

    metric = "valid_bits"  # "Validation BPC"
    papers_optimizer = "adam"
    clip = 0.25  # ours, after Dai et al. 2019
    # Section 4.3: "windows of 1536 at train and 4608 at test time", read as what a character can see. Ours: new
    # characters in a step, batch, steps and schedule.
    defaults = {
        "optimizer": "adam", "batch": 32, "length": 768, "eval_length": 768, "memory": 1536, "eval_memory": 4608,
        "steps": 400_000, "eval_every": 4000, "feed_forward": 1536, "width": 512, "heads": 4,
    }  # fmt: skip
    tiny = {
        "batch": 2, "length": 8, "eval_length": 8, "memory": 8, "eval_memory": 16, "steps": 4, "eval_every": 2,
        "feed_forward": 16, "width": 16, "heads": 2, "layers": 2,
    }  # fmt: skip

    def preset(self) -> Preset:
        """Adam at 2e-4, for M2(R) at 5e-4 (section 4.3)."""
        adam = Preset(2e-4 if self.args.algebra == "R" else 5e-4, "cosine")
        return adam if self.args.optimizer == "adam" else super().preset()

    presets = {"sgd": Preset(0.1, "cosine", {"momentum": 0.9})}  # ours

    @property
    def row_key(self) -> str:
        return f"algebra/enwik8/{self.args.algebra}"

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--memory", type=int, help="past characters that are seen beyond a training window")
        parser.add_argument("--eval-memory", type=int, help="the same in evaluation")
        parser.add_argument("--feed-forward", type=int)
        parser.add_argument("--heads", type=int)

    def read(self):
        return *enwik8.characters(self.args.data), 256

    def build(self):
        """Embedding 512, 4 heads of 128, feed-forward 1536; R: 24 layers, dropout 0.25; M2(R): 42 layers, 0.15."""
        args = self.args
        layers, dropout = (24, 0.25) if args.algebra == "R" else (42, 0.15)
        shape = (args.width, args.layers or layers, args.heads, None, args.feed_forward, args.memory)
        return TransformerXL(args.algebra, self.vocabulary, *shape, dropout)

    def evaluate(self, model, final):
        model.memory = self.args.eval_memory
        results = super().evaluate(model, final)
        model.memory = self.args.memory
        return results


if __name__ == "__main__":
    main(AlgebraEnwik8)
