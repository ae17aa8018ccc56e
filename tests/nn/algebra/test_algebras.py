"""The tables of the paper, entry by entry, and what is read off them."""

import copy
import pickle

import pytest
import torch
from oracles import algebra as oracle

from lognet import LogTensor
from lognet.nn import Algebra

# Section 2.2 and appendix A.1, as printed: rows are the weight t, columns the activation v.
PRINTED = {
    "C": "a b / b -a",
    "M2R": "a b 0 0 / 0 0 a b / c d 0 0 / 0 0 c d",
    "H": "a b c d / b -a d -c / c -d -a b / d c -b -a",
    "D4": "a 0 0 0 / 0 b 0 0 / 0 0 c 0 / 0 0 0 d",
    "M2C": """a b c d 0 0 0 0 / b -a d -c 0 0 0 0 / 0 0 0 0 a b c d / 0 0 0 0 b -a d -c
        / e f g h 0 0 0 0 / f -e h -g 0 0 0 0 / 0 0 0 0 e f g h / 0 0 0 0 f -e h -g""",
}
# Table 1: weight size, weight reuse, multiplies, values loaded
TABLE_1 = {
    "R": (1, 1, 1, 2),
    "C": (2, 2, 4, 4),
    "M2R": (4, 2, 8, 8),
    "M3R": (9, 3, 27, 18),
    "M4R": (16, 4, 64, 32),
    "M2C": (8, 4, 32, 16),
    "H": (4, 4, 16, 8),
    "D2": (2, 1, 2, 4),
    "D3": (3, 1, 3, 6),
    "D4": (4, 1, 4, 8),
}


@pytest.mark.parametrize("name", PRINTED)
def test_tables_are_those_of_the_paper(name):
    structure = Algebra(name).structure(torch.float64)
    rows = [row.split() for row in PRINTED[name].split("/")]
    assert len(rows) == structure.shape[0]
    for t, row in enumerate(rows):
        for v, printed in enumerate(row):
            expected = torch.zeros(len(rows), dtype=torch.float64)
            if printed != "0":
                expected["abcdefgh".index(printed[-1])] = -1.0 if printed[0] == "-" else 1.0
            assert torch.equal(structure[:, t, v], expected), (t, v)


def test_the_paper_says_32_nonzeros_for_m2c():
    assert Algebra("M2C").multiplies == 32


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name):
    algebra = Algebra(name)
    assert (algebra.size, algebra.weight_reuse, algebra.multiplies, algebra.loads) == TABLE_1[name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_multiply_against_the_definition(name, dtype):
    size = oracle.SIZES[name]
    t, v = torch.randint(-3, 4, (2, 5, size)).to(dtype)  # small integers: exact in every dtype
    expected = torch.tensor([oracle.multiply(name, a, b) for a, b in zip(t.tolist(), v.tolist(), strict=True)])
    result = Algebra(name).multiply(t, v)
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))


@pytest.mark.parametrize("name", oracle.ALGEBRAS)
def test_expand_against_the_definition(name):
    weight = torch.randn(3, 2, 2, oracle.SIZES[name], dtype=torch.float64)
    assert torch.equal(Algebra(name).expand(weight), oracle.dense(name, weight))


@pytest.mark.parametrize("name", ["C", "M2C"])
def test_multiply_and_expand_are_differentiable(name):
    algebra = Algebra(name)
    t, v = torch.randn(2, 1, 3, algebra.size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(algebra.multiply, (t, v.transpose(0, 1)))
    assert torch.autograd.gradcheck(algebra.expand, (t,))
    assert algebra.multiply(LogTensor.from_float(torch.randn(algebra.size)), v[0, 0].float()).shape == (algebra.size,)


def test_associative_and_commutative():
    assert all(Algebra(name).is_associative for name in oracle.ALGEBRAS)
    commutative = {name for name in oracle.ALGEBRAS if Algebra(name).is_commutative}
    assert commutative == {"R", "C", "D2", "D3", "D4"}


def octonions():
    """By Cayley-Dickson from the quaternions: (a, b)(c, d) = (ac - d*b, da + bc*)."""
    basis = torch.eye(8, dtype=torch.float64)
    h, star = Algebra("H").multiply, torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)
    entries = []
    for left in range(8):
        for right in range(8):
            (a, b), (c, d) = basis[left].view(2, 4), basis[right].view(2, 4)
            out = torch.cat([h(a, c) - h(d * star, b), h(d, a) + h(b, c * star)])
            entries += [(int(o), left, right, float(out[o])) for o in out.nonzero()]
    return Algebra("octonions", entries)


def test_registering_another():
    mine = octonions()
    assert (mine.size, mine.multiplies, mine.is_associative) == (8, 64, False)
    with pytest.raises(ValueError, match="'octonions' is not known; known are R, C, H"):
        Algebra("octonions")
    assert mine.register() is mine
    assert Algebra("octonions") == mine.register()
    assert repr(Algebra("octonions")) == "Algebra('octonions')"
    with pytest.raises(ValueError, match="'octonions' is registered already"):
        Algebra("octonions", Algebra("C").entries).register()


def test_is_a_value():
    h = Algebra("H")
    assert copy.deepcopy(h) == h == pickle.loads(pickle.dumps(h))
    assert hash(h) == hash(Algebra("H"))
    assert str(h) == "H"
    assert Algebra.of("H") == Algebra.of(h) == h
    assert Algebra("H", h.entries[::-1]) == h


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Algebra("Q"), ValueError, "'Q' is not known; known are R, C, H"),
        (lambda: Algebra(4), TypeError, "must be a name or an Algebra, got 4"),
        (lambda: Algebra("x", []), ValueError, "needs at least one entry"),
        (lambda: Algebra("x", [(0, 0, 0, 1), (0, 0, 0, 1)]), ValueError, "two entries for one"),
        (lambda: Algebra("x", [(0, 0, -1, 1)]), ValueError, "needs indices from 0"),
        (lambda: Algebra("x", [(0, 0, 0, 0)]), ValueError, "a sign that is not zero"),
        (lambda: Algebra("x", [(0, 0, 0, 1), (0, 1, 1, 1)]), ValueError, "never writes component 1"),
        (lambda: Algebra.from_grid("x", "a b\nb"), ValueError, "must be square: row 2 has 1 of 2"),
        (lambda: Algebra.from_grid("x", "a b\nb c"), ValueError, "a signed letter of ab, got 'c'"),
        (lambda: Algebra("H").multiply(torch.ones(3), torch.ones(4)), ValueError, "t must have 4 components of H last"),
        (lambda: Algebra("H").expand(torch.ones(3, 4)), ValueError, r"weight must be \(out, in, \*kernel, 4\) for H"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
