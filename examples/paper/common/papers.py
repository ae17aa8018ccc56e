"""The papers' figures, which the recipes print beside their own. Nothing here was measured by lognet."""

from __future__ import annotations

from dataclasses import dataclass

MADAM = "Bernstein et al. 2020 (Madam)"
ALGEBRA = "Hoffmann et al. 2020 (AlgebraNets)"
R2D2 = "Zhang et al. 2021 (R2D2, PHM)"
THESIS = "Panahi's thesis, chapter 4 (Shapeshifter)"


@dataclass(frozen=True)
class Row:
    """One figure of a paper."""

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


ROWS: dict[str, Row] = {}
"""By a key that the recipes make of their options: ``madam/cifar10/madam/8``, ``iwslt/phm/16``."""


def _add(prefix: str, source: str, unit: str, figures: dict[str, tuple[str, float, float | None]]) -> None:
    for key, (what, figure, spread) in figures.items():
        ROWS[f"{prefix}/{key}"] = Row(source, what, unit, figure, spread)


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

_add(
    "algebra/cifar10",
    f"{ALGEBRA}, Table 6",
    "top-1 accuracy, %",
    {
        "R/batch": ("CIFAR-10, R, 3.64M parameters", 94.2, None),
        "C/batch": ("CIFAR-10, C BN, 1.85M parameters", 94.2, None),
        "C/whitening": ("CIFAR-10, C W, 1.86M parameters", 94.3, None),
        "M2R/batch": ("CIFAR-10, M2(R), 0.94M parameters", 94.3, None),
        "H/batch": ("CIFAR-10, H BN, 0.94M parameters", 93.4, None),
        "H/whitening": ("CIFAR-10, H W, 0.97M parameters", 94.1, None),
    },
)
# Figures 1 and 2 are drawings without numbers; this one stands in the text.
_add(
    "algebra/imagenet",
    f"{ALGEBRA}, appendix B.2",
    "top-1 accuracy, %",
    {"resnet50/H": ("ImageNet, ResNet-50, H, channels divided by 4", 74.0, 0.14)},
)
_add(
    "algebra/enwik8",
    f"{ALGEBRA}, Table 2",
    "validation bits per character",
    {
        "R": ("enwik8, Transformer efficient 24L, 69.4M parameters", 0.99, None),
        "M2R": ("enwik8, M2(R)-Transformer efficient 42L, 31.2M parameters", 0.99, None),
    },
)
_add(
    "algebra/wikitext103",
    f"{ALGEBRA}, Table 3",
    "validation bits per character",
    {  # the paper counts tuples: the key has the tuples too
        "R/1024": ("WikiText-103, R, 1024, 12.1M parameters", 1.34, None),
        "R/1280": ("WikiText-103, R, 1280, 18.7M parameters", 1.32, None),
        "R/1536": ("WikiText-103, R, 1536, 27.8M parameters", 1.29, None),
        "R/1768": ("WikiText-103, R, 1768, 35.3M parameters", 1.25, None),
        "R/2048": ("WikiText-103, R, 2048, 47.2M parameters", 1.24, None),
        "C/1024": ("WikiText-103, C, 1024, 24.1M parameters", 1.26, None),
        "C/640": ("WikiText-103, C, 640, 9.68M parameters", 1.32, None),
        "M2R/512": ("WikiText-103, M2(R), 512, 12.6M parameters", 1.30, None),
        "H/512": ("WikiText-103, H, 512, 12.6M parameters", 1.32, None),
        "M3R/384": ("WikiText-103, M3(R), 384, 16.4M parameters", 1.31, None),
    },
)
_add(
    "iwslt",
    f"{R2D2}, Table 2, De-En",
    "BLEU",
    {
        "dense": ("IWSLT'14, Transformer, 44M parameters", 36.68, None),
        "phm/2": ("IWSLT'14, R2D2 n = 2, 22M parameters", 35.52, None),
        "phm/4": ("IWSLT'14, R2D2 n = 4, 11M parameters", 35.53, None),
        "phm/8": ("IWSLT'14, R2D2 n = 8, 5.5M parameters", 34.16, None),
        "phm/16": ("IWSLT'14, R2D2 n = 16, 2.9M parameters", 33.89, None),
    },
)
_add(
    "iwslt-t5",
    f"{THESIS}, Table 5",
    "BLEU",
    {
        "dense": ("IWSLT'14 De-En, T5-small, 60.5M parameters", 36.72, None),
        "phm": ("IWSLT'14 De-En, T5-small, PHM-Tm n = 16, 19.6M parameters", 36.49, None),
        "shapeshifter": ("IWSLT'14 De-En, T5-small, Shapeshifter 16/256, 4.2M parameters", 36.36, None),
    },
)
