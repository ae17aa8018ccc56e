"""How the sides of a matrix split into the sides of its Kronecker factors: divisors, exact roots, padding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

SIZES = ("auto", "divisors", "padded")


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return `value` if it is an int of at least `least`, else raise TypeError or ValueError naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_padding_idx(padding_idx: int | None, num_embeddings: int) -> int | None:
    """Return padding_idx counted from the front, or raise TypeError or ValueError.

    >>> check_padding_idx(-1, 10)
    9
    """
    if padding_idx is None:
        return None
    if isinstance(padding_idx, bool) or not isinstance(padding_idx, int):
        raise TypeError(f"padding_idx must be an int or None, got {padding_idx!r} of type {type(padding_idx).__name__}")
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(
            f"padding_idx must lie within num_embeddings={num_embeddings}, got {padding_idx};"
            f" use {-num_embeddings} to {num_embeddings - 1}, or None"
        )
    return padding_idx % num_embeddings


def divisors(n: int) -> list[int]:
    """All divisors of n, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def nearest_divisors(n: int, *sizes: int) -> str:
    """The common divisors of all sizes next to n, below and above, in words.

    >>> nearest_divisors(5, 12, 24), nearest_divisors(7, 6)
    ('4 or 6', '6')
    """
    legal = divisors(math.gcd(*sizes))
    return _either([d for d in legal if d < n][-1:] + [d for d in legal if d > n][:1])


def check_divides(n: int, **sizes: int) -> int:
    """Return n if it divides every size, else raise ValueError with the nearest legal n and the nearest legal sizes.

    >>> check_divides(4, in_features=300, out_features=10)
    Traceback (most recent call last):
    ValueError: n=4 must divide out_features=10; for these sizes use n=2 or 5, or for n=4 out_features=8 or 12
    """
    check_count("n", n)
    wrong = {name: size for name, size in sizes.items() if size % n}
    if not wrong:
        return n
    near = [f"{name}={_either([m for m in (s // n * n, s // n * n + n) if m])}" for name, s in wrong.items()]
    raise ValueError(
        f"n={n} must divide {' and '.join(f'{name}={size}' for name, size in wrong.items())};"
        f" for these sizes use n={nearest_divisors(n, *sizes.values())}, or for n={n} {', '.join(near)}"
    )


def _either(values: list[int]) -> str:
    return " or ".join(map(str, values))


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
            padded entries or attain less than half of their rank: a prime side has no divisors to speak of.

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
    exact = min(_divisor_splits(rows, columns), key=_preference)
    dear = _entries(exact) > 1.1 * _entries(padded)
    poor = one_term_rank(exact) < min(one_term_rank(padded), rows, columns) / 2
    return padded if sizes == "auto" and (dear or poor) else exact


def _divisor_splits(rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    return ((a, b, rows // a, columns // b) for a in divisors(rows) for b in divisors(columns))


def _entries(shape: tuple[int, int, int, int]) -> int:
    a, b, c, d = shape
    return a * b + c * d


def _preference(shape: tuple[int, int, int, int]) -> tuple[float, ...]:
    a, b, c, d = shape
    return _entries(shape), -one_term_rank(shape), max(a, b) / min(a, b) + max(c, d) / min(c, d), a
