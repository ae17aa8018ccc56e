"""Algebras as data: one structure table gives the product, its cost, the dense expansion and the fast form.

An algebra multiplies tuples of A real numbers. Its table is a list of entries ``(out, left, right, sign)``. Each means
``o[out] += sign * t[left] * v[right]``. Rows of the paper's tables are the left factor (the weight t), columns the
right one (the activation v).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ...tensor.floats import dense

Entry = tuple[int, int, int, float]


@dataclass(frozen=True)
class Algebra:
    """A finite-dimensional real algebra, by name or by its structure table.

    Args:
        name: of a registered algebra: ``"R", "C", "H", "M2R", "M3R", "M4R", "M2C", "D2", "D3", "D4"``; or, with
            `entries`, any name for a new one.
        entries: the structure table, ``(out, left, right, sign)`` each, indices from 0; `sign` is usually +1 or -1 and
            may be any non-zero number. Default: the table registered under `name`.

    Attributes:
        size: A, components of a tuple.
        multiplies, loads: real multiplications in one product, and numbers loaded for it.
        weight_reuse: the mean number of output components to which one component of the left factor contributes.

    An algebra need not be associative or commutative (`is_associative`, `is_commutative`) or have a unit, because a layer
    multiplies only once. After `register`, a new one can be given by its name.

    Raises:
        ValueError: a name not registered; an empty table, a negative index, an entry of zero, one given twice, or a
            component that the table never writes.

    Source: Hoffmann et al. 2020 ("AlgebraNets"), sections 2.1 and 2.2, Table 1 and appendix A.1. Matrices are
    row-major, complex matrices interleaved (re, im, re, im, ...), as printed there.

    >>> h = Algebra("H")
    >>> h.size, h.weight_reuse, h.multiplies, h.loads
    (4, 4.0, 16, 8)
    >>> i, j = torch.eye(4)[1], torch.eye(4)[2]
    >>> h.multiply(i, j).tolist(), h.multiply(j, i).tolist()  # ij = k = -ji
    ([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0])
    """

    name: str
    entries: tuple[Entry, ...] = None  # type: ignore[assignment]  # None is looked up below
    size: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(
                f"algebra must be a name or an Algebra, got {self.name!r} of type {type(self.name).__name__}"
            )
        if self.entries is None:
            if self.name not in _REGISTERED:
                raise ValueError(
                    f"algebra {self.name!r} is not known; known are {', '.join(_REGISTERED)}. Register another with"
                    " Algebra(name, entries).register()"
                )
            object.__setattr__(self, "entries", _REGISTERED[self.name])
        else:
            object.__setattr__(self, "entries", _checked(self.name, self.entries))
        object.__setattr__(self, "size", 1 + max(max(entry[:3]) for entry in self.entries))

    @staticmethod
    def of(algebra: str | Algebra) -> Algebra:
        """The algebra itself, or the one registered under a name. Every layer reads its argument `algebra` by this."""
        return algebra if isinstance(algebra, Algebra) else Algebra(algebra)

    @staticmethod
    def from_grid(name: str, grid: str) -> Algebra:
        """The algebra of a table as the paper prints it: row t and column v have a signed component or 0.

        Raises:
            ValueError: the grid is not square, or an entry is not a signed letter from ``a`` or 0.

        >>> Algebra.from_grid("split", "a b\\nb a").multiply(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).tolist()
        [1.0, 0.0]
        """
        rows = [line.split() for line in grid.strip().splitlines()]
        letters = "abcdefghijklmnopqrstuvwxyz"[: len(rows)]
        entries: list[Entry] = []
        for left, row in enumerate(rows):
            if len(row) != len(rows):
                raise ValueError(
                    f"grid of {name!r} must be square: row {left + 1} has {len(row)} of {len(rows)} entries"
                )
            for right, cell in enumerate(row):
                letter = cell.removeprefix("-")
                if letter != "0" and (len(letter) != 1 or letter not in letters):
                    raise ValueError(f"grid of {name!r}: entries are 0 or a signed letter of {letters}, got {cell!r}")
                if letter != "0":
                    entries.append((letters.index(letter), left, right, -1.0 if cell.startswith("-") else 1.0))
        return Algebra(name, tuple(entries))

    def register(self) -> Algebra:
        """Make this algebra known under its name, for ``algebra="name"`` everywhere, and return it.

        Raises:
            ValueError: another table is registered under that name.
        """
        if _REGISTERED.get(self.name, self.entries) != self.entries:
            raise ValueError(f"algebra {self.name!r} is registered already, with another table; choose another name")
        _REGISTERED[self.name] = self.entries
        return self

    @property
    def multiplies(self) -> int:
        """Real multiplications in one product of two tuples: entries of the table."""
        return len(self.entries)

    @property
    def loads(self) -> int:
        """Real numbers loaded for one product: both tuples."""
        return 2 * self.size

    @property
    def weight_reuse(self) -> float:
        """The mean number of output components to which one component of the weight contributes (Table 1)."""
        return self.multiplies / self.size

    @cached_property
    def is_associative(self) -> bool:
        """Whether (x y) z = x (y z) for all basis elements, hence for all."""
        s = self.structure(torch.float64)  # o, l, r
        left, right = torch.einsum("oxz,xlr->olrz", s, s), torch.einsum("olx,xrz->olrz", s, s)
        return bool(torch.allclose(left, right))

    @cached_property
    def is_commutative(self) -> bool:
        """Whether x y = y x for all basis elements, hence for all."""
        s = self.structure(torch.float64)
        return bool(torch.equal(s, s.transpose(1, 2)))

    def structure(self, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """The table as a tensor (A, A, A) of signs, indexed [out, left, right]; zero where there is no entry."""
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return _structure(self, dtype, torch.device("cpu" if device is None else device))

    def multiply(self, t: Tensor, v: Tensor) -> Tensor:
        """The product t . v over the last dimension, which has size A; all others broadcast. Differentiable.

        Raises:
            ValueError: a last dimension that is not A.

        >>> Algebra("M2R").multiply(torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.0, 1, 1, 0])).tolist()
        [2.0, 1.0, 4.0, 3.0]
        """
        for name, x in (("t", t), ("v", v)):
            if x.dim() == 0 or x.shape[-1] != self.size:
                raise ValueError(f"{name} must have {self.size} components of {self.name} last, got {tuple(x.shape)}")
        t, v = dense(t), dense(v)
        dtype = torch.promote_types(t.dtype, v.dtype)
        # the matrix by which the left factor acts
        acting = torch.einsum("...l,olr->...or", t.to(dtype), self.structure(dtype, t.device))
        return (acting @ v.to(dtype).unsqueeze(-1)).squeeze(-1)

    def expand(self, weight: Tensor) -> Tensor:
        """The dense real matrix or kernel that does the same as a weight of tuples. It has A times as many numbers.

        Args:
            weight: (out, in, *kernel, A) in tuples.

        Returns:
            (out * A, in * A, *kernel): `F.linear` or `F.conv2d` with it computes what the layers compute.

        >>> Algebra("C").expand(torch.tensor([[[3.0, 4.0]]])).tolist()
        [[3.0, -4.0], [4.0, 3.0]]
        """
        weight = dense(weight)
        if weight.dim() < 3 or weight.shape[-1] != self.size:
            raise ValueError(
                f"weight must be (out, in, *kernel, {self.size}) for {self.name}, got {tuple(weight.shape)}"
            )
        structure = self.structure(weight.dtype, weight.device)
        blocks = torch.einsum("oi...l,plm->opim...", weight, structure)
        out, inputs, *kernel = weight.shape[:-1]
        return blocks.reshape(out * self.size, inputs * self.size, *kernel)

    def __repr__(self) -> str:
        known = _REGISTERED.get(self.name) == self.entries
        return f"Algebra({self.name!r})" if known else f"Algebra({self.name!r}, entries={self.entries})"

    def __str__(self) -> str:
        return self.name


def tuples_in(size: int, algebra: Algebra, name: str) -> int:
    """The number of tuples in a width of `size` real scalars, or an error that names the nearest legal width."""
    a = algebra.size
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} must be an int, got {size!r} of type {type(size).__name__}")
    if size <= 0 or size % a:
        nearest = max(a, (size + a // 2) // a * a)
        raise ValueError(
            f"{name}={size} must be a positive multiple of {a}, the tuple size of {algebra.name}; nearest is {nearest}"
        )
    return size // a


@lru_cache(maxsize=256)
def _structure(algebra: Algebra, dtype: torch.dtype, device: torch.device) -> Tensor:
    table = torch.zeros(algebra.size, algebra.size, algebra.size, dtype=dtype)
    for out, left, right, sign in algebra.entries:
        table[out, left, right] = sign
    return table.to(device)


def _checked(name: str, entries: Iterable[Any]) -> tuple[Entry, ...]:
    made = tuple(sorted((int(o), int(t), int(v), float(sign)) for o, t, v, sign in entries))
    if not made:
        raise ValueError(f"algebra {name!r} needs at least one entry (out, left, right, sign)")
    if len({entry[:3] for entry in made}) < len(made):
        raise ValueError(f"algebra {name!r} has two entries for one (out, left, right); add their signs up")
    for entry in made:
        if min(entry[:3]) < 0 or entry[3] == 0 or entry[3] != entry[3]:
            raise ValueError(f"algebra {name!r}: entry {entry} needs indices from 0 and a sign that is not zero")
    missing = set(range(1 + max(max(entry[:3]) for entry in made))) - {entry[0] for entry in made}
    if missing:
        raise ValueError(f"algebra {name!r} never writes component {min(missing)}: its tuples must be dense from 0")
    return made


def _matrices(n: int, base: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """n x n matrices over another algebra: the base's components innermost, then columns, then rows."""
    size = 1 + max(entry[0] for entry in base)
    at = lambda row, column, component: (row * n + column) * size + component
    return tuple(
        (at(p, c, o), at(p, m, t), at(m, c, v), sign)
        for p, m, c in product(range(n), repeat=3)
        for o, t, v, sign in base
    )


_R: tuple[Entry, ...] = ((0, 0, 0, 1.0),)
_REGISTERED: dict[str, tuple[Entry, ...]] = {}
_C = Algebra.from_grid("C", "a b\nb -a").entries
for _name, _entries in {
    "R": _R,
    "C": _C,
    "H": Algebra.from_grid("H", "a b c d\nb -a d -c\nc -d -a b\nd c -b -a").entries,
    "M2R": _matrices(2, _R),
    "M3R": _matrices(3, _R),
    "M4R": _matrices(4, _R),
    "M2C": _matrices(2, _C),
    **{f"D{n}": tuple((i, i, i, 1.0) for i in range(n)) for n in (2, 3, 4)},
}.items():
    Algebra(_name, _entries).register()
