"""Checks of arguments that all structured layers share; each returns the value that it has checked."""

from __future__ import annotations

import math


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return `value` if it is an int of at least `least`, else raise TypeError or ValueError naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_probability(name: str, value: float) -> float:
    """Return `value` as a float if it lies within 0 and 1, else raise ValueError naming the argument."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a probability, between 0 and 1, got {value}")
    return float(value)


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
    """The common divisors of all sizes nearest to n, below and above, in words.

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
