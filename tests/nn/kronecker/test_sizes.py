"""Sides of factors, against exhaustive search."""

import math

import pytest

from lognet.nn import factor_shapes
from lognet.nn.checks import check_divides, divisors
from lognet.nn.kronecker.sizes import integer_root, one_term_rank


def test_divisors():
    for n in range(1, 200):
        assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 8])
def test_integer_roots_are_exact(order):
    for n in [*range(1, 300), *(t**order + e for t in (2, 9, 10, 97) for e in (-1, 0, 1)), 118655, 30000]:
        t = integer_root(n, order)
        assert (t - 1) ** order < n <= t**order


def test_huge_roots():
    assert integer_root(10**60, 3) == 10**20
    assert integer_root(10**60 + 1, 3) == 10**20 + 1


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 12, 36, 60])
@pytest.mark.parametrize("columns", [1, 5, 6, 48])
def test_divisors_are_the_best_pairing(rows, columns):
    a, b, c, d = factor_shapes(rows, columns, "divisors")
    assert (a * c, b * d) == (rows, columns)
    every = [(p, q, rows // p, columns // q) for p in divisors(rows) for q in divisors(columns)]
    least = min(p * q + r * s for p, q, r, s in every)
    assert a * b + c * d == least
    assert one_term_rank((a, b, c, d)) == max(
        one_term_rank(shape) for shape in every if shape[0] * shape[1] + shape[2] * shape[3] == least
    )


@pytest.mark.parametrize("rows", [1, 7, 64, 97, 1000, 50257])
@pytest.mark.parametrize("columns", [1, 13, 512, 768])
@pytest.mark.parametrize("sizes", ["auto", "padded"])
def test_every_size_is_covered(rows, columns, sizes):
    a, b, c, d = factor_shapes(rows, columns, sizes)
    assert a * c >= rows
    assert b * d >= columns
    if sizes == "padded":
        assert a == c == math.isqrt(rows - 1) + 1
        assert b == d == math.isqrt(columns - 1) + 1


def test_numbers_of_the_papers():
    assert factor_shapes(512, 2048) == (16, 64, 32, 32)  # crossed: exactly 2 sqrt(nm) entries
    assert factor_shapes(1024, 1024) == (32, 32, 32, 32)
    a, b, c, d = factor_shapes(512, 512)
    assert 16 * (a * b + c * d) == 16384  # what the thesis says of 512 x 2048
    assert 16 * (16 * 64 + 32 * 32) == 32768  # what its formula says of 512 x 2048
    assert factor_shapes(512, 512, "padded") == (23, 23, 23, 23)


def test_padding_only_where_nothing_divides():
    assert factor_shapes(101, 103) == factor_shapes(101, 103, "padded")
    assert factor_shapes(50257, 768) == factor_shapes(50257, 768, "padded")  # 29 x 1733: divisors of low rank
    assert factor_shapes(32128, 512) == factor_shapes(32128, 512, "divisors")


def test_errors():
    with pytest.raises(ValueError, match="sizes must be one of 'auto', 'divisors', 'padded', got 'square'"):
        factor_shapes(4, 4, "square")
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        factor_shapes(0, 4)
    with pytest.raises(TypeError, match=r"columns must be an int, got 4\.0 of type float"):
        factor_shapes(4, 4.0)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        check_divides(0, in_features=4)
    with pytest.raises(
        ValueError, match="n=7 must divide a=300; for these sizes use n=6 or 10, or for n=7 a=294 or 301"
    ):
        check_divides(7, a=300)
    with pytest.raises(ValueError, match="n=8 must divide a=4 and b=6; for these sizes use n=2, or for n=8 a=8, b=8"):
        check_divides(8, a=4, b=6)
