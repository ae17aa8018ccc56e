"""How the sides of a matrix split into the sides of its Kronecker factors: divisors, exact roots, padding."""

from __future__ import annotations

from functools import lru_cache

from ..checks import check_count, divisors

SIZES = ("auto", "divisors", "padded")


def integer_root(n: int, order: int) -> int:
    """The least t with t^order >= n, exactly (in integers: 9^5 is not 10^5).

    >>> integer_root(118655, 4), integer_root(10**5, 5), integer_root(10**5 + 1, 5)
    (19, 10, 11)
    """
    check_count("order", order)
    t = max(1, round(n ** (1 / order)))
    while t**order >= n and t > 1:
        t -= 1
    while t**order < n:
        t += 1
    return t


def one_term_rank(shape: tuple[int, int, int, int]) -> int:
    """The matrix rank that one term A (x) B with A (a, b) and B (c, d) can attain, for (a, b, c, d)."""
    a, b, c, d = shape
    return min(a, b) * min(c, d)


@lru_cache(maxsize=1024)
def factor_shapes(rows: int, columns: int, sizes: str = "auto") -> tuple[int, int, int, int]:
    """The sides (a, b, c, d) of the factors A (a, b) and B (c, d) of a rows x columns matrix.

    Args:
        rows, columns: the matrix's sides, at least 1.
        sizes: "padded" takes the two ceilings of the square roots, ac >= rows and bd >= columns, and the product is
            cropped. "divisors" takes integer divisors, ac = rows and bd = columns, in the pairing with the fewest
            entries ab + cd; among equals, the one whose single term attains the highest matrix rank, then the one
            with the most square factors. "auto" takes the divisors, unless they cost more than 1.1 times the
            padded entries or attain less than half of their rank: a prime side has only 1 and itself.

    Returns:
        (a, b, c, d). Divisors often meet the least possible count, ab + cd = 2 sqrt(rows * columns), because a tall
        factor can be paired with a wide one ("crossed").

    Raises:
        TypeError, ValueError: a side that is not a positive int, or an unknown `sizes`.

    Source: "Shapeshifter", section 4.3 of the thesis, where the square roots are taken for integers.

    >>> factor_shapes(512, 2048), factor_shapes(512, 2048, "padded")
    ((16, 64, 32, 32), (23, 46, 23, 46))
    >>> factor_shapes(32128, 512), factor_shapes(101, 103)
    ((128, 32, 251, 16), (11, 11, 11, 11))
    """
    check_count("rows", rows)
    check_count("columns", columns)
    if sizes not in SIZES:
        raise ValueError(f"sizes must be one of {', '.join(map(repr, SIZES))}, got {sizes!r}")
    a, b = integer_root(rows, 2), integer_root(columns, 2)
    padded = (a, b, a, b)
    if sizes == "padded":
        return padded
    splits = ((a, b, rows // a, columns // b) for a in divisors(rows) for b in divisors(columns))
    exact = min(splits, key=_preference)
    dear = _entries(exact) > 1.1 * _entries(padded)
    poor = one_term_rank(exact) < min(one_term_rank(padded), rows, columns) / 2
    return padded if sizes == "auto" and (dear or poor) else exact


def _entries(shape: tuple[int, int, int, int]) -> int:
    a, b, c, d = shape
    return a * b + c * d


def _preference(shape: tuple[int, int, int, int]) -> tuple[float, ...]:
    a, b, c, d = shape
    return _entries(shape), -one_term_rank(shape), max(a, b) / min(a, b) + max(c, d) / min(c, d), a
