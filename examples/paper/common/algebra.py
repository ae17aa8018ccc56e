"""The base class of the recipes for AlgebraNets."""

from __future__ import annotations

import argparse

ALGEBRAS = ("R", "C", "H", "M2R", "M3R", "M4R", "M2C")


class AlgebraRow:
    """For recipes of Hoffmann et al. 2020: the algebra, and what differs from the paper's run."""

    args: argparse.Namespace
    papers_optimizer: str | None
    """The paper's, in float; None where it names none."""

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """The algebra."""
        super().add_options(parser)  # type: ignore[misc]
        parser.add_argument("--algebra", choices=ALGEBRAS, default="M2R")

    @property
    def differs(self) -> str:
        """The contender, where it is not the paper's."""
        if self.args.bits is not None or self.args.optimizer.startswith("madam"):
            return "the paper trains these networks in float, and without Madam"
        if self.papers_optimizer is None:
            return "the paper does not say how it trained this network"
        if self.args.optimizer != self.papers_optimizer:
            return f"the paper's optimizer is {self.papers_optimizer}"
        return ""
