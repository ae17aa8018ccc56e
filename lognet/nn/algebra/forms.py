"""Fast forms: how a layer over an algebra becomes one matrix product or one convolution, derived from its table.

A weight tuple acts on an activation tuple by a real A x A matrix. In most algebras that matrix falls into *columns*,
blocks that do not mix. In M_n(R), W . X acts on each column of X by the same n x n matrix W. The column therefore
becomes a dimension of the batch, and the weight needs no expansion::

    y[b, c, (o, p)] = sum over (i, m) of W[(o, p), (i, m)] x[b, c, (i, m)]        M_n(R), n columns
    y[b, (o, p)]    = sum over (i, m) of W[(o, p), (i, m)] x[b, (i, m)]           C, H: one column, W the dense expansion
    y[k, b, o]      = sum over i of W[k, o, i] x[k, b, i]                         D_N: N columns, each with its own weight

M_2(C) is two columns of complex pairs. Activations in the order (column, tuple, row) are *column-outermost*; `to_columns`
and `from_columns` convert between the two orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .algebras import Algebra, Entry

LAYOUTS = ("tuples", "columns")


@dataclass(frozen=True)
class Columns:
    """How the components of an algebra fall into columns.

    Component ``(row * columns + column) * inner + j`` belongs to `column`. A column has `height` components.

    Attributes:
        rows, columns, inner: the factors of A.
        shared: whether one matrix multiplies every column (M_n). If not, every column has its own (D_N).
    """

    rows: int
    columns: int
    inner: int
    shared: bool

    @property
    def height(self) -> int:
        """Components in a column: rows * inner."""
        return self.rows * self.inner

    @property
    def trivial(self) -> bool:
        """Whether both layouts are the same."""
        return self.columns == 1

    def position(self, component: int) -> tuple[int, int]:
        """The column of a component, and its index in that column."""
        row, column, j = component // (self.columns * self.inner), component // self.inner, component % self.inner
        return column % self.columns, row * self.inner + j

    def outermost(self, x: Tensor, dim: int) -> Tensor:
        """From (tuple, component) order to (column, tuple, row) order along `dim`."""
        return x if self.trivial else self._permuted(x, dim, forth=True)

    def innermost(self, x: Tensor, dim: int) -> Tensor:
        """The inverse of `outermost`."""
        return x if self.trivial else self._permuted(x, dim, forth=False)

    def _permuted(self, x: Tensor, dim: int, forth: bool) -> Tensor:
        dim %= x.dim()
        size = self.height * self.columns
        if x.shape[dim] % size:
            raise ValueError(f"dimension {dim} of size {x.shape[dim]} must be a multiple of {size}, the tuple size")
        tuples = x.shape[dim] // size * self.rows
        sizes = (tuples, self.columns, self.inner) if forth else (self.columns, tuples, self.inner)
        split = x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])
        return split.transpose(dim, dim + 1).reshape(x.shape)


@lru_cache(maxsize=64)
def columns_of(algebra: Algebra) -> Columns:
    """Find the columns of an algebra: the classes of components that its table connects.

    A table whose classes have different sizes or spacings gets one column of all components: the dense expansion.

    >>> columns_of(Algebra("M3R")), columns_of(Algebra("H")).columns
    (Columns(rows=3, columns=3, inner=1, shared=True), 1)
    """
    size = algebra.size
    label = list(range(size))
    for out, _, right, _ in algebra.entries:
        a, b = label[out], label[right]
        label = [min(a, b) if x in (a, b) else x for x in label]
    names = sorted(set(label))
    count, inner = len(names), next((i for i, x in enumerate(label) if x != label[0]), size)
    rows = size // (count * inner)
    if rows * count * inner != size or label != [names[i // inner % count] for i in range(size)]:
        return one_column(algebra)
    columns = Columns(rows, count, inner, True)
    blocks: list[set[Entry]] = [set() for _ in range(count)]
    for out, left, right, sign in algebra.entries:
        column, p = columns.position(out)
        blocks[column].add((p, left, columns.position(right)[1], sign))
    return columns if all(block == blocks[0] for block in blocks) else Columns(rows, count, inner, False)


def one_column(algebra: Algebra) -> Columns:
    """All components as one column: the dense expansion."""
    return Columns(algebra.size, 1, 1, True)


class WeightForm:
    """The linear map from a weight of tuples to the matrix or kernel that multiplies, and its adjoint.

    It is a `lognet.tensor.floats.Form`. Columns with weights of their own become the groups of a convolution, or with
    `batched` a batch dimension of matrices (in, out).

    Args:
        transposed: for transposed convolutions, whose weights have inputs first.
        columns: default `columns_of`; `one_column` gives the dense expansion.
    """

    def __init__(
        self, algebra: Algebra, transposed: bool = False, batched: bool = False, columns: Columns | None = None
    ) -> None:
        self.columns = columns_of(algebra) if columns is None else columns
        self.batched = batched and not self.columns.shared
        self.count = 1 if self.columns.shared else self.columns.columns
        # where each weight component goes: (column, out row, in row, component, sign), in this order
        table = []
        for out, left, right, sign in algebra.entries:
            (column, p), (_, m) = self.columns.position(out), self.columns.position(right)
            if column < self.count:
                table.append((column, m, p, left, sign) if transposed else (column, p, m, left, sign))
        self.table = sorted(table)
        places = [entry[:3] for entry in self.table]
        self.full = len(set(places)) == len(places) == self.count * self.columns.height**2  # each entry is written once
        self.plain = self.full and [(t, sign) for *_, t, sign in self.table] == [(t, 1) for t in range(algebra.size)]

    def expand(self, weight: Tensor) -> Tensor:
        """(out, in, *kernel, A) to (out * height, in * height, *kernel); with own weights, one such for each column.

        The matrices of the columns follow each other like the groups of a convolution; if `batched`, they are (columns,
        in * height, out * height). For M_n(R) and D_N this permutes the weight. For others it is the dense expansion.
        """
        count, height = self.count, self.columns.height
        out, inputs, *kernel = weight.shape[:-1]
        k = len(kernel)
        if self.plain:
            spread = weight.reshape(out, inputs, *kernel, count, height, height)
            spread = spread.permute(k + 2, 0, k + 3, 1, k + 4, *range(2, k + 2))
        else:
            shape = (count, out, height, inputs, height, *kernel)
            spread = weight.new_empty(shape) if self.full else weight.new_zeros(shape)
            negated = -weight
            for column, p, m, t, sign in self.table:
                part = negated[..., t] if sign == -1 else weight[..., t] if sign == 1 else sign * weight[..., t]
                place = spread[column, :, p, :, m]
                place.copy_(part) if self.full else place.add_(part)
        if self.batched:
            return spread.reshape(count, out * height, inputs * height).contiguous().mT
        return spread.reshape(count * out * height, inputs * height, *kernel)

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint of `expand`: the gradient of the weight, of `shape`, from that of the matrix or kernel."""
        count, height = self.count, self.columns.height
        out, inputs, *kernel = shape[:-1]
        if self.batched:
            spread = grad.reshape(count, inputs, height, out, height).permute(0, 3, 4, 1, 2)
        else:
            spread = grad.reshape(count, out, height, inputs, height, *kernel)
        if self.plain:
            grads = grad.new_empty(*shape[:-1], count, height, height)
            for column in range(count):
                for p in range(height):  # copies of slices run faster than one of the whole
                    grads[..., column, p, :].copy_(spread[column, :, p].movedim(2, -1))
            return grads.reshape(shape)
        grads = grad.new_zeros(shape[-1], *shape[:-1])
        for column, p, m, t, sign in self.table:
            grads[t].add_(spread[column, :, p, :, m], alpha=sign)
        return grads.movedim(0, -1).contiguous()


def to_columns(x: Tensor, algebra: str | Algebra, dim: int = -1) -> Tensor:
    """From (tuple, component) order to column-outermost (column, tuple, row) order along `dim`, whose size stays.

    Layers made with ``layout="columns"`` take and return the second order. Activations, dropout and residual sums work
    in both orders, because they treat all scalars alike. For algebras of one column (R, C, H) both are the same.

    Args:
        x: any shape, `dim` a multiple of A.
        algebra: name or Algebra.
        dim: the feature or channel dimension.

    >>> to_columns(torch.tensor([1.0, 2, 3, 4]), "M2R")  # the matrix [[1, 2], [3, 4]] by columns
    tensor([1., 3., 2., 4.])
    """
    return columns_of(Algebra.of(algebra)).outermost(x, dim)


def from_columns(x: Tensor, algebra: str | Algebra, dim: int = -1) -> Tensor:
    """The inverse of `to_columns`.

    Args:
        x: any shape, with whole columns along `dim`.
        algebra: name or `Algebra`.
        dim: the dimension of the features.

    Raises:
        ValueError: the size of `dim` is not a multiple of A.

    >>> from_columns(to_columns(torch.arange(9), "M3R"), "M3R").tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    return columns_of(Algebra.of(algebra)).innermost(x, dim)


def check_layout(layout: str) -> str:
    """Return `layout` if it is one of `LAYOUTS`, else raise ValueError."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(map(repr, LAYOUTS))}, got {layout!r}")
    return layout
