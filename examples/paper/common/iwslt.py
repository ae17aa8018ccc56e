"""IWSLT'14 German to English as ``train.de``, ``train.en``, ``valid.*`` and ``test.*``: a sentence a line, tokens by spaces.

fairseq's ``prepare-iwslt14.sh`` writes this layout, with byte-pair pieces that end in ``@@``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

PAD, EOS, UNKNOWN = 0, 1, 2
SPECIAL = ("<pad>", "</s>", "<unk>")
Sentences = list[list[int]]


class Corpus:
    """Sentence pairs by number, with one vocabulary for both languages, made of the training text."""

    def __init__(self, folder: Path, source: str = "de", target: str = "en") -> None:
        raw = {part: _read(folder, part, source, target) for part in ("train", "valid", "test")}
        counts = Counter(token for pair in raw["train"] for side in pair for token in side)
        self.tokens = [*SPECIAL, *sorted(counts, key=lambda token: (-counts[token], token))]
        number = {token: i for i, token in enumerate(self.tokens)}
        encode = lambda side: [number.get(token, UNKNOWN) for token in side]
        self.pairs = {part: [(encode(a), encode(b)) for a, b in pairs] for part, pairs in raw.items()}
        self.references = [text([*b]) for _, b in raw["test"]]

    def words(self, numbers: list[int]) -> str:
        """The sentence for a model's output. Numbers without a token become the unknown token."""
        known = lambda i: self.tokens[i if i < len(self.tokens) else UNKNOWN]
        return text([known(i) for i in numbers if i not in (PAD, EOS)])


def text(tokens: list[str]) -> str:
    """A sentence with byte-pair pieces joined to words, with spaces between tokens."""
    return (" ".join(tokens) + " ").replace("@@ ", "").strip()


def _read(folder: Path, part: str, *languages: str) -> list[tuple[list[str], ...]]:
    sides = []
    for language in languages:
        path = folder / f"{part}.{language}"
        if not path.is_file():
            raise SystemExit(f"error: {folder} lacks {path.name}; --data holds train, valid and test in two languages")
        with path.open(encoding="utf-8") as file:
            sides.append([line.split() for line in file])
    if len({len(side) for side in sides}) > 1:
        raise SystemExit(f"error: the {part} files of {folder} have {' and '.join(str(len(s)) for s in sides)} lines")
    return list(zip(*sides, strict=True))
