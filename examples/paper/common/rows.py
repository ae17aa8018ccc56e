"""The base classes of the recipes of two papers: which row of its tables a run is, and what differs from the paper's run."""

from __future__ import annotations

import argparse

from .optimizers import BASE_PRECISION

ALGEBRAS = ("R", "C", "H", "M2R", "M3R", "M4R", "M2C")


class AlgebraRow:
    """For recipes of Hoffmann et al. 2020: the algebra, and what differs from the paper's run."""

    args: argparse.Namespace
    papers_optimizer: str | None
    """The paper's, in float; None where it names none."""

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)  # type: ignore[misc]
        parser.add_argument("--algebra", choices=ALGEBRAS, default="M2R")

    @property
    def differs(self) -> str:
        if self.args.bits is not None or self.args.optimizer.startswith("madam"):
            return "the paper trains these networks in float, and without Madam"
        if self.papers_optimizer is None:
            return "the paper does not say how it trained this network"
        if self.args.optimizer != self.papers_optimizer:
            return f"the paper's optimizer is {self.papers_optimizer}"
        return ""


class MadamRow:
    """For recipes of Bernstein et al. 2020: which row, and what the paper leaves open."""

    args: argparse.Namespace
    task: str
    """As in the keys of `papers.ROWS`."""

    @property
    def row_key(self) -> str:
        bits = "none" if self.args.bits is None else self.args.bits
        return f"madam/{self.task}/{self.args.optimizer.removesuffix('-paper')}/{bits}"

    @property
    def differs(self) -> str:
        if self.args.optimizer == "madam":
            return "lognet's Madam is not the paper's: --optimizer madam-paper is"
        if self.args.optimizer == "madam-paper" and self.args.bits in (8, 10):
            return f"base_precision {BASE_PRECISION[self.args.bits]} is ours: the paper gives that of 12 bits only"
        return ""
