"""The networks that ``--model`` names: layers, width, depth and tables in one word.

    LAYERS[@WIDTH[xDEPTH]][+TABLES]        R   H   R@32   R@64x1   PHM4   K4+XS4   L16@96+L8

LAYERS are ``R`` (plain layers), an algebra, ``PHMn``, ``Kr`` (Kronecker sums of rank r) or ``Lr`` (low rank r).
TABLES are the embeddings and the output layer: ``XSr`` makes the embeddings word2ketXS of order 2 and rank r and the
output layer a Kronecker sum of rank r, ``Lr`` makes all of them low rank.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ..nn import Algebra
from .errors import SweepError

REAL = "R"
ALGEBRAS = ("C", "H", "M2R", "M3R", "M4R", "M2C", "D2", "D3", "D4")
"""The algebras over which the networks can be built."""

FORMS = f"LAYERS[@WIDTH[xDEPTH]][+TABLES], LAYERS being {REAL}, {', '.join(ALGEBRAS)}, PHMn, Kr or Lr, TABLES XSr or Lr"
"""The syntax of a model, for messages."""

_COUNT = r"[1-9]\d{0,3}"
_MODEL = re.compile(
    rf"(?P<layers>{REAL}|{'|'.join(ALGEBRAS)}|(?:PHM|K|L){_COUNT})"
    rf"(@(?P<width>{_COUNT})(x(?P<depth>{_COUNT}))?)?(\+(?P<tables>(?:XS|L){_COUNT}))?",
    re.ASCII,
)

_LAYERS = {"PHM": ("PHM", "PHM n ="), "K": ("Kronecker", "Kronecker rank"), "L": ("LowRank", "low rank")}
"""By the letters of a model: the class in `lognet` that makes its layers, and the words for titles."""


@dataclass(frozen=True)
class Variant:
    """One network of a task, described by its differences from the task's own network."""

    layers: str = REAL
    width: int | None = None
    depth: int | None = None
    tables: str | None = None

    @classmethod
    def parse(cls, word: str) -> Variant:
        """The variant that a word names.

        Raises:
            SweepError: the word names no variant.

        >>> Variant.parse("PHM4@96+XS2")
        Variant(layers='PHM4', width=96, depth=None, tables='XS2')
        """
        found = _MODEL.fullmatch(word)
        if found is None:
            raise SweepError(f"unknown model {word!r}; a model is {FORMS}")
        width, depth = (None if found[part] is None else int(found[part]) for part in ("width", "depth"))
        return cls(found["layers"], width, depth, found["tables"])

    def __str__(self) -> str:
        depth = "" if self.depth is None else f"x{self.depth}"
        width = "" if self.width is None else f"@{self.width}{depth}"
        return f"{self.layers}{width}" + ("" if self.tables is None else f"+{self.tables}")

    @property
    def plain(self) -> bool:
        """Whether it consists of plain layers, of any size. Factored networks are compared with these."""
        return self.layers == REAL and self.tables is None

    @property
    def family(self) -> str:
        """The kind of its layers: `R`, `algebra`, `PHM`, `K` or `L`."""
        if self.layers in ALGEBRAS:
            return "algebra"
        return self.layers.rstrip("0123456789")

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key in tables: by family, with the largest network first, then by tables."""
        family = (REAL, "algebra", "PHM", "K", "L").index(self.family)
        algebra = ALGEBRAS.index(self.layers) if family == 1 else 0
        number = _number(self.layers) if family > 1 else 0
        size = (self.width is not None, -(self.width or 0), self.depth is not None, -(self.depth or 0))
        kind = "" if self.tables is None else self.tables.rstrip("0123456789")
        return (family, kind, algebra, number if family == 2 else -number, -_number(self.tables or "0"), *size)

    @property
    def title(self) -> str:
        """The differences in words; empty for a task's own network."""
        parts = []
        if self.family == "algebra":
            parts.append(f"over {self.layers}")
        elif self.family != REAL:
            parts.append(f"{_LAYERS[self.family][1]} {_number(self.layers)}")
        if self.width is not None:
            parts.append(f"width {self.width}")
        if self.depth is not None:
            parts.append(f"{self.depth} layer{'s' * (self.depth > 1)}")
        if self.tables is not None:
            kind = "word2ketXS" if self.tables.startswith("XS") else "low-rank"
            parts.append(f"{kind} tables of rank {_number(self.tables)}")
        return ", ".join(parts)

    def settings(self, own: dict[str, Any], parts: dict[str, list[str]]) -> dict[str, Any]:
        """The network's settings, from the task's own and from the names of its parts that can be factorised.

        Args:
            own: of the task: "kind", "width", and "layers" where it has a depth.
            parts: fnmatch patterns of its "layers", "embeddings" and "output"; empty if nothing is to be factorised.

        Returns:
            A copy of `own` with its width and depth, "algebra", and "factors": a list of
            [pattern, class in `lognet`, numbers...].

        Raises:
            SweepError: the network has no such parts or no depth, or tuples do not divide its width.
        """
        settings = dict(own)
        if self.width is not None:
            settings["width"] = self.width
        if self.depth is not None:
            if "layers" not in own:
                raise SweepError(f"model {self}: this network has no depth to choose; leave x{self.depth} out")
            settings["layers"] = self.depth
        if self.family == "algebra":
            settings["algebra"] = self.layers
            settings["width"] = _whole_tuples(settings["width"], self.layers, own.get("heads", 1))
            if self.width not in (None, settings["width"]):
                raise SweepError(f"model {self}: this width is not one of whole tuples; use @{settings['width']}")
        factors = self._factors(parts)
        if factors and not parts:
            raise SweepError(f"model {self}: this network has no parts to factorise; it is for the task text")
        return {**settings, "factors": factors} if factors else settings

    def _factors(self, parts: dict[str, list[str]]) -> list[list[Any]]:
        """[pattern, class, numbers...] for every part that is factorised, with an empty pattern if `parts` names none."""
        rules: list[tuple[str, list[Any]]] = []
        if self.family in _LAYERS:
            rules.append(("layers", [_LAYERS[self.family][0], _number(self.layers)]))
        if self.tables is not None:
            rank = _number(self.tables)
            xs = self.tables.startswith("XS")
            rules.append(("embeddings", ["Word2KetXS", 2, rank] if xs else ["LowRank", rank]))
            rules.append(("output", ["Kronecker" if xs else "LowRank", rank]))
        return [[pattern, *rule] for part, rule in rules for pattern in parts.get(part, [""])]


def _whole_tuples(width: int, algebra: str, heads: int) -> int:
    """The nearest width that is a multiple of the tuple size and of the number of attention heads."""
    unit = math.lcm(Algebra(algebra).size, heads)
    return max(1, round(width / unit)) * unit


def _number(word: str) -> int:
    """The number at the end of a word."""
    return int(re.sub(r"^\D*", "", word))
