"""Madam on WikiText-2 with a transformer: rows of Tables 1 and 2 of Bernstein et al. 2020.

python examples/paper/madam_wikitext2.py --data wikitext-2 --out runs/wt2-12 --bits 12
"""

import math

import torch
from torch import nn

from common import wikitext
from common.language import LanguageRecipe
from common.loop import main
from common.optimizers import Preset
from common.rows import MadamRow


class TransformerLM(nn.Module):
    """A causal transformer over words with sinusoidal positions, of the sizes that PyTorch's tutorial has: ours."""

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, heads, width, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)
        self.width = width
        for table in (self.embedding.weight, self.head.weight):
            nn.init.uniform_(table, -0.1, 0.1)

    def forward(self, x, state=None):
        """Logits (batch, length, vocabulary) of (batch, length); no state: it sees its window only."""
        length = x.shape[1]
        rate = 10000 ** (-torch.arange(0, self.width, 2, device=x.device) / self.width)
        angle = torch.arange(length, device=x.device)[:, None] * rate
        positions = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, : self.width]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        h = self.dropout(self.embedding(x) * math.sqrt(self.width) + positions)
        return self.head(self.encoder(h, mask, is_causal=True)), None


class MadamWikiText2(MadamRow, LanguageRecipe):
    """Madam on WikiText-2 with a transformer (Bernstein et al. 2020, Tables 1 and 2)."""

    metric = "test_perplexity"
    task = "wikitext2"
    clip = 0.5  # ours
    # All ours: the paper says "Transformer" and no size, batch or length.
    defaults = {"batch": 20, "epochs": 40, "length": 35, "layers": 2, "width": 200, "heads": 2, "patience": 1}
    tiny = {"batch": 2, "epochs": 1, "length": 8, "layers": 1, "width": 16}
    presets = {"sgd": Preset(1.0, "plateau"), "adam": Preset(0.001, "plateau")}  # SGD's is Table 1's, Adam's ours

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--heads", type=int)
        parser.add_argument("--dropout", type=float, default=0.2)

    def read(self):
        (train, valid, test), vocabulary = wikitext.words(self.args.data)
        return train, valid, test, vocabulary

    def build(self):
        args = self.args
        return TransformerLM(self.vocabulary, args.width, args.heads, args.layers, args.dropout)


if __name__ == "__main__":
    main(MadamWikiText2)
