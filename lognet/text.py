"""Tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1, rule: bool = False) -> list[str]:
    """The lines of a table. The first row is its heading, with a `rule` of dashes below it if asked.

    The first `left` columns are aligned to the left, the others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    dashes = ["-" * (sum(widths) + 2 * (len(widths) - 1))] if rule else []
    return [lines[0].rstrip(), *dashes, *(line.rstrip() for line in lines[1:])]
