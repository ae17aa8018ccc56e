"""The papers' figures, which the recipes print beside their own. Nothing here was measured by lognet."""

from __future__ import annotations

from dataclasses import dataclass

MADAM = "Bernstein et al. 2020 (Madam)"
ALGEBRA = "Hoffmann et al. 2020 (AlgebraNets)"
R2D2 = "Zhang et al. 2021 (R2D2, PHM)"
THESIS = "Panahi's thesis, chapter 4 (Shapeshifter)"


@dataclass(frozen=True)
class Row:
    source: str
    """Paper and table."""
    what: str
    """Task and contender, as the paper names them."""
    unit: str
    figure: float
    spread: float | None = None
    """As the paper gives it (Madam: the range of three repeats)."""

    def __str__(self) -> str:
        return f"{self.figure:g}" + ("" if self.spread is None else f" ± {self.spread:g}")


_ACCURACY, _BITS = "top-1 accuracy, %", "validation bits per character"
_CIFAR = f"{ALGEBRA}, Table 6"
_IMAGENET = f"{ALGEBRA}, appendix B.2"
_ENWIK8 = f"{ALGEBRA}, Table 2"
_WIKITEXT = f"{ALGEBRA}, Table 3"
_IWSLT = f"{R2D2}, Table 2, De-En"
_T5 = f"{THESIS}, Table 5"
ROWS: dict[str, Row] = {
    "algebra/cifar10/R/batch": Row(_CIFAR, "CIFAR-10, R, 3.64M parameters", _ACCURACY, 94.2),
    "algebra/cifar10/C/batch": Row(_CIFAR, "CIFAR-10, C BN, 1.85M parameters", _ACCURACY, 94.2),
    "algebra/cifar10/C/whitening": Row(_CIFAR, "CIFAR-10, C W, 1.86M parameters", _ACCURACY, 94.3),
    "algebra/cifar10/M2R/batch": Row(_CIFAR, "CIFAR-10, M2(R), 0.94M parameters", _ACCURACY, 94.3),
    "algebra/cifar10/H/batch": Row(_CIFAR, "CIFAR-10, H BN, 0.94M parameters", _ACCURACY, 93.4),
    "algebra/cifar10/H/whitening": Row(_CIFAR, "CIFAR-10, H W, 0.97M parameters", _ACCURACY, 94.1),
    # Figures 1 and 2 are drawings without numbers; this one stands in the text.
    "algebra/imagenet/resnet50/H": Row(
        _IMAGENET, "ImageNet, ResNet-50, H, channels divided by 4", _ACCURACY, 74.0, 0.14
    ),
    "algebra/enwik8/R": Row(_ENWIK8, "enwik8, Transformer efficient 24L, 69.4M parameters", _BITS, 0.99),
    "algebra/enwik8/M2R": Row(_ENWIK8, "enwik8, M2(R)-Transformer efficient 42L, 31.2M parameters", _BITS, 0.99),
    # The paper counts tuples: the key has the tuples too.
    "algebra/wikitext103/R/1024": Row(_WIKITEXT, "WikiText-103, R, 1024, 12.1M parameters", _BITS, 1.34),
    "algebra/wikitext103/R/1280": Row(_WIKITEXT, "WikiText-103, R, 1280, 18.7M parameters", _BITS, 1.32),
    "algebra/wikitext103/R/1536": Row(_WIKITEXT, "WikiText-103, R, 1536, 27.8M parameters", _BITS, 1.29),
    "algebra/wikitext103/R/1768": Row(_WIKITEXT, "WikiText-103, R, 1768, 35.3M parameters", _BITS, 1.25),
    "algebra/wikitext103/R/2048": Row(_WIKITEXT, "WikiText-103, R, 2048, 47.2M parameters", _BITS, 1.24),
    "algebra/wikitext103/C/1024": Row(_WIKITEXT, "WikiText-103, C, 1024, 24.1M parameters", _BITS, 1.26),
    "algebra/wikitext103/C/640": Row(_WIKITEXT, "WikiText-103, C, 640, 9.68M parameters", _BITS, 1.32),
    "algebra/wikitext103/M2R/512": Row(_WIKITEXT, "WikiText-103, M2(R), 512, 12.6M parameters", _BITS, 1.30),
    "algebra/wikitext103/H/512": Row(_WIKITEXT, "WikiText-103, H, 512, 12.6M parameters", _BITS, 1.32),
    "algebra/wikitext103/M3R/384": Row(_WIKITEXT, "WikiText-103, M3(R), 384, 16.4M parameters", _BITS, 1.31),
    "iwslt/dense": Row(_IWSLT, "IWSLT'14, Transformer, 44M parameters", "BLEU", 36.68),
    "iwslt/phm/2": Row(_IWSLT, "IWSLT'14, R2D2 n = 2, 22M parameters", "BLEU", 35.52),
    "iwslt/phm/4": Row(_IWSLT, "IWSLT'14, R2D2 n = 4, 11M parameters", "BLEU", 35.53),
    "iwslt/phm/8": Row(_IWSLT, "IWSLT'14, R2D2 n = 8, 5.5M parameters", "BLEU", 34.16),
    "iwslt/phm/16": Row(_IWSLT, "IWSLT'14, R2D2 n = 16, 2.9M parameters", "BLEU", 33.89),
    "iwslt-t5/dense": Row(_T5, "IWSLT'14 De-En, T5-small, 60.5M parameters", "BLEU", 36.72),
    "iwslt-t5/phm": Row(_T5, "IWSLT'14 De-En, T5-small, PHM-Tm n = 16, 19.6M parameters", "BLEU", 36.49),
    "iwslt-t5/shapeshifter": Row(_T5, "IWSLT'14 De-En, T5-small, Shapeshifter 16/256, 4.2M parameters", "BLEU", 36.36),
}
"""By a key that the recipes make of their options: ``madam/cifar10/madam/8``, ``iwslt/phm/16``."""

# Tables 1 and 2. Of SGD and Adam, Table 1 gives only the better one.
_ERROR, _FID, _PERPLEXITY = "top-1 test error, %", "FID", "test perplexity"
for _task, _what, _unit, _best, _figures in [
    ("cifar10", "CIFAR-10, ResNet-18", _ERROR, "adam 6.6 0.2", "7.8 0.2  7.0 0.1  7.8 0.3  8.6 1.5"),
    ("cifar100", "CIFAR-100, ResNet-18", _ERROR, "sgd 29.1 0.2", "30.2 0.1  27.6 0.3  29.5 0.3  33.9 1.1"),
    ("imagenet", "ImageNet, ResNet-50", _ERROR, "sgd 24.1 0.1", "28.9 0.1  31.1 0.1  34.8 0.3  50.5 0.5"),
    ("cgan", "CIFAR-10, cGAN", _FID, "adam 23.9 0.9", "19.3 0.7  19.8 0.8  23.4 0.4  36 6"),
    ("wikitext2", "Wikitext-2, transformer", _PERPLEXITY, "sgd 169.6 0.6", "173.3 0.6  182.3 0.6  218.0 0.6  262 2"),
]:
    _name, *_rest = _best.split()
    _numbers = [*map(float, _rest), *map(float, _figures.split())]
    _names = [(_name, "none"), *(("madam", bits) for bits in ("none", "12", "10", "8"))]
    for (_optimizer, _bits), _figure, _spread in zip(_names, _numbers[::2], _numbers[1::2], strict=True):
        _label = {"madam": "Madam", "adam": "Adam", "sgd": "SGD"}[_optimizer]
        _label = f"FP32 {_label}" if _bits == "none" else f"{_bits}-bit {_label}"
        _source = f"{MADAM}, Table {1 if _bits == 'none' else 2}"
        ROWS[f"madam/{_task}/{_optimizer}/{_bits}"] = Row(_source, f"{_what}, {_label}", _unit, _figure, _spread)
