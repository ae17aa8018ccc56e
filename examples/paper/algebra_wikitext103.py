"""AlgebraNets on the characters of WikiText-103 with a GRU: Table 3 of Hoffmann et al. 2020, section 4.4.

python examples/paper/algebra_wikitext103.py --data wikitext-103 --out runs/gru-m2r --algebra M2R --tuples 512
"""

from common import wikitext
from common.language import LanguageRecipe
from common.loop import main
from common.optimizers import Preset
from common.rows import AlgebraRow
from lognet.models import CharGRU

SIZES = {"R": 1, "C": 2, "H": 4, "M2R": 4, "M3R": 9, "M4R": 16, "M2C": 8}  # components of a tuple


class AlgebraWikiText103(AlgebraRow, LanguageRecipe):
    """AlgebraNets on the characters of WikiText-103 with a GRU (Hoffmann et al. 2020, Table 3)."""

    metric = "valid_bits"
    best = "late minimum"  # "the minimum validation loss over the last 5% of training"
    papers_optimizer = "adam"
    # Section 4.4: batch 16, 200,000 steps, sequences of 512, 5 readout layers. The state goes from one sequence to the
    # next: ours, as is when it is evaluated.
    defaults = {"optimizer": "adam", "batch": 16, "steps": 200_000, "length": 512, "layers": 5, "eval_every": 2000}
    tiny = {"batch": 2, "steps": 4, "length": 8, "layers": 1, "tuples": 4, "eval_every": 2}
    presets = {
        "adam": Preset(1e-4, "constant", {"weight_decay": 1e-7}),  # section 4.4
        "sgd": Preset(0.1, "cosine", {"momentum": 0.9}),  # ours
    }

    @property
    def row_key(self) -> str:
        return f"algebra/wikitext103/{self.args.algebra}/{self.args.tuples}"

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--tuples", type=int, default=512, help="hidden size as Table 3 counts it")

    def read(self):
        """Bytes: Table 3's parameter counts are met by an alphabet of 256 (R, 1024: 12.06M)."""
        return *wikitext.characters(self.args.data), 256

    def build(self):
        hidden = self.args.tuples * SIZES[self.args.algebra]
        return CharGRU(self.args.algebra, hidden, self.vocabulary, self.args.layers)

    def predict(self, network, x, state):
        logits, state = network(x.T, state)  # the GRU has time first
        return logits.transpose(0, 1), state


if __name__ == "__main__":
    main(AlgebraWikiText103)
