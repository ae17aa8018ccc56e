"""The base class of the recipes for Madam's Tables 1 and 2."""

from __future__ import annotations

import argparse

from .optimizers import BASE_PRECISION


class MadamRow:
    """For recipes of Bernstein et al. 2020: which row, and what the paper leaves open."""

    args: argparse.Namespace
    task: str
    """As in the keys of `papers.ROWS`."""

    @property
    def row_key(self) -> str:
        """Of the contender's row in Table 1 or 2."""
        bits = "none" if self.args.bits is None else self.args.bits
        return f"madam/{self.task}/{self.args.optimizer.removesuffix('-paper')}/{bits}"

    @property
    def differs(self) -> str:
        """The contender, where it is not the paper's."""
        if self.args.optimizer == "madam":
            return "lognet's Madam is not the paper's: --optimizer madam-paper is"
        if self.args.optimizer == "madam-paper" and self.args.bits in (8, 10):
            return f"base_precision {BASE_PRECISION[self.args.bits]} is ours: the paper gives that of 12 bits only"
        return ""
