"""Shapeshifter on IWSLT'14 German to English with T5-small: Table 5 of Panahi's thesis (section 4.4.1).

python examples/paper/shapeshifter_iwslt.py --data iwslt14.tokenized.de-en --out runs/shape --form shapeshifter
"""

from torch import nn
from transformers import T5Config, T5ForConditionalGeneration  # the extra `clients`

from common.iwslt import EOS, PAD
from common.loop import main
from common.optimizers import Preset
from common.translation import TranslationRecipe
from lognet import PHM, Kronecker, compress

FORMS = {
    "dense": None,
    "phm": {nn.Embedding: None, nn.Linear: PHM(16)},  # "PHM-Tm n = 16"
    # "Shapeshifter 16/256": ranks of the blocks and of the embedding; "padded" is the thesis's own ceil(sqrt), 4.2M
    "shapeshifter": {nn.Embedding: Kronecker(256, "padded"), nn.Linear: Kronecker(16, "padded")},
}


class ShapeshifterTranslation(TranslationRecipe):
    """Shapeshifter on IWSLT'14 German to English with T5-small (Panahi's thesis, Table 5)."""

    # Section 4.4.1: T5-small, batch 128, inverse square root, dropout 0.1, label smoothing 0.1, no weight decay. Its
    # optimizer, LAMB at 2e-3, is not here; Adam's rate is that of its section 4.4.2. Steps and beams are ours.
    defaults = {"optimizer": "adam", "batch": 128, "steps": 50_000, "layers": 6}
    tiny = {
        "batch": 4, "steps": 4, "layers": 1, "width": 16, "heads": 2, "feed_forward": 32, "beams": 2, "max_length": 12,
        "vocabulary": 64,
    }  # fmt: skip
    presets = {
        "adam": Preset(5e-4, "inverse-sqrt", {"betas": (0.9, 0.98)}),
        "sgd": Preset(0.1, "inverse-sqrt", {"momentum": 0.9}),
    }

    @property
    def row_key(self) -> str:
        return f"iwslt-t5/{self.args.form}"

    @property
    def differs(self) -> str:
        return "the paper trained with LAMB, on the pieces of T5's own tokenizer"

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--form", choices=tuple(FORMS), default="shapeshifter")
        parser.add_argument("--vocabulary", type=int, default=32128, help="rows of the embedding: T5's, 16.5M")

    def build(self):
        """60,506,624 parameters; 19,612,160 with PHM, 4,167,936 as Shapeshifter."""
        args, needed = self.args, len(self.corpus.tokens)
        if needed > args.vocabulary:
            raise SystemExit(f"error: the data has {needed} kinds of tokens: use --vocabulary {needed} or more")
        config = T5Config(
            vocab_size=args.vocabulary,
            d_model=args.width,
            d_kv=args.width // args.heads,
            d_ff=args.feed_forward,
            num_layers=args.layers,
            num_heads=args.heads,
            dropout_rate=args.dropout,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            use_cache=False,
        )
        model = T5ForConditionalGeneration(config)
        spec = FORMS[args.form]
        return model if spec is None else compress(model, spec, min_parameters=min(4096, args.width**2))[0]

    def logits(self, network, source, target):
        return network(input_ids=source, attention_mask=source != PAD, labels=target).logits

    def translate(self, model, source):
        """By Hugging Face's search, which divides by length^alpha."""
        args = self.args
        search = {"num_beams": args.beams, "length_penalty": args.alpha, "max_new_tokens": args.max_length}
        return model.generate(source, attention_mask=source != PAD, do_sample=False, **search).tolist()


if __name__ == "__main__":
    main(ShapeshifterTranslation)
