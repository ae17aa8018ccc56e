"""How linear layers over an algebra multiply: the choice of a fast form, and the order of activations that it takes.

Real matrices serve every algebra (`RealProduct`, on the forms of `forms`). Where pairs of components multiply as
complex numbers do, as in C and M_2(C), complex matrices need no expansion of the weight (`ComplexProduct`).
Quaternions are pairs of complex numbers, ``w = w1 + w2 j``, and

    (w1 + w2 j)(x1 + x2 j) = (w1 x1 + w2 (-x2*)) + (w1 x2 + w2 x1*) j        * the complex conjugate

so that the weight row (w1, w2) multiplies two complex vectors made of each activation. The activation doubles, and the
weight does not quadruple (`QuaternionProduct`).

Each takes the weight through a `lognet.tensor.floats.Form`, so that LogTensor weights stay codes in the graph.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...quant.tracing import tracing
from ...tensor import functional
from ...tensor.autograd import autocast_dtype, in_transform
from ...tensor.floats import Form, dense
from .algebras import Algebra
from .forms import Columns, WeightForm, columns_of

_HAMILTON, _COMPLEX = Algebra("H").entries, Algebra("C").entries


class RealProduct(WeightForm):
    """Products as one real matrix product, batched over columns where these have weights of their own."""

    def __init__(self, algebra: Algebra) -> None:
        super().__init__(algebra, batched=True)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None, layout: str, form: Form | None) -> Tensor:
        """(*, in_features) to (*, out_features), in a layout.

        Args:
            x, weight, bias, layout: as in `algebra_linear`.
            form: this form, one made of it, or None where `weight` is in this form already.
        """
        columns = self.columns
        if columns.trivial:
            return functional.linear(x, weight, bias, form)
        if columns.shared:
            x = columns.outermost(x, -1) if layout == "tuples" else x
            y = self.multiply(x.unflatten(-1, (columns.columns, -1)), weight, form).flatten(-2)
            y = columns.innermost(y, -1) if layout == "tuples" else y
            return _biased(y, bias, columns, layout)
        return _biased(self._by_own_weights(x, weight, layout, form), bias, columns, layout)

    def multiply(self, x: Tensor, weight: Tensor, form: Form | None) -> Tensor:
        """(*, columns, height in) to (*, columns, height out), each column by the same matrix."""
        return functional.linear(x, weight, None, form)

    def _by_own_weights(self, x: Tensor, weight: Tensor, layout: str, form: Form | None) -> Tensor:
        """A batched product: one permutation to (columns, batch, height), contiguous because that is faster, and one back."""
        n, inner, leading = self.columns.columns, self.columns.inner, x.shape[:-1]
        batch, height = leading.numel(), x.shape[-1] // n
        if layout == "tuples":
            x = x.reshape(batch, height // inner, n, inner).permute(2, 0, 1, 3)
        else:
            x = x.reshape(batch, n, height).transpose(0, 1)
        y = functional.matmul(x.reshape(n, batch, height).contiguous(), weight, form=form)
        if layout == "tuples":
            return y.unflatten(-1, (-1, inner)).permute(1, 2, 0, 3).reshape(*leading, n * y.shape[-1])
        return y.transpose(0, 1).reshape(*leading, n * y.shape[-1])


class ComplexProduct(RealProduct):
    """Products of complex matrices, for algebras whose columns are made of complex numbers."""

    def expand(self, weight: Tensor) -> Tensor:
        """(out, in, A) to the complex (out * rows, in * rows): a view for C, a permutation for M_n(C)."""
        out, inputs, _ = weight.shape
        n = self.columns.height // 2
        matrix = weight.reshape(out, inputs, n, n, 2).transpose(1, 2).reshape(out * n, inputs * n, 2)
        return torch.view_as_complex(matrix)

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint of `expand`."""
        out, inputs, _ = shape
        n = self.columns.height // 2
        return torch.view_as_real(grad.resolve_conj()).reshape(out, n, inputs, n, 2).transpose(1, 2).reshape(shape)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None, layout: str, form: Form | None) -> Tensor:
        if not self.columns.trivial:
            return super().apply(x, weight, bias, layout, form)
        bias = None if bias is None else _as_complex(dense(bias))
        return torch.view_as_real(functional.linear(_as_complex(x), weight, bias, form)).flatten(-2)

    def multiply(self, x: Tensor, weight: Tensor, form: Form | None) -> Tensor:
        return torch.view_as_real(functional.linear(_as_complex(x), weight, None, form)).flatten(-2)


class _Doubled(torch.autograd.Function):
    """Quaternions (*, features), x1 + x2 j each, to what complex weights multiply: (x1, -x2*) and (x2, x1*) along a new -2."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        pairs = _as_complex(x.unflatten(-1, (-1, 4)))
        rows = torch.view_as_real(torch.stack([pairs, _swapped(pairs)], -3)).flatten(-3)
        return rows.mul_(_signs(rows))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        first, second = _as_complex((grad * _signs(grad)).unflatten(-1, (-1, 4))).unbind(-3)
        return torch.view_as_real(first + _swapped(second)).flatten(-3)


def _signs(rows: Tensor) -> Tensor:
    """Signs of the components in both rows of `_Doubled`, for whole rows, because these multiply faster than tuples."""
    return rows.new_tensor([[1, 1, -1, 1], [1, 1, 1, -1]]).tile(rows.shape[-1] // 4)


def _swapped(pairs: Tensor) -> Tensor:
    return torch.stack([pairs[..., 1], pairs[..., 0]], -1)


class QuaternionProduct(RealProduct):
    """Products of quaternions, as pairs of complex numbers."""

    def expand(self, weight: Tensor) -> Tensor:
        """(out, in, 4) to the complex (out, in * 2), a view."""
        return _as_complex(weight.flatten(1))

    def collapse(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint of `expand`."""
        return torch.view_as_real(grad.resolve_conj()).reshape(shape)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None, layout: str, form: Form | None) -> Tensor:
        y = functional.linear(
            _as_complex(_Doubled.apply(x)), weight, None, form
        )  # (*, 2, out), copied as complex numbers
        y = torch.view_as_real(y.transpose(-2, -1).contiguous()).flatten(-3)
        return _biased(y, bias, self.columns, layout)


def _as_complex(x: Tensor) -> Tensor:
    """Pairs of the last dimension as complex numbers."""
    return torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))


def _biased(y: Tensor, bias: Tensor | None, columns: Columns, layout: str) -> Tensor:
    if bias is None:
        return y
    bias = dense(bias).to(y.dtype)
    return y + (bias if layout == "tuples" else columns.outermost(bias, -1))


class Products:
    """The ways to multiply over an algebra: `real`, which takes every input, and `best`, the fastest."""

    def __init__(self, algebra: Algebra) -> None:
        self.real = self.best = RealProduct(algebra)
        if algebra.entries == _HAMILTON:
            self.best = QuaternionProduct(algebra)
        elif _is_complex(algebra):
            self.best = ComplexProduct(algebra)

    def choose(self, x: Tensor) -> RealProduct:
        """The fastest that takes x. Complex numbers do not take half precision, torch.compile or torch.func transforms."""
        suits = x.dtype in (torch.float32, torch.float64) and autocast_dtype(x.device) is None
        return self.best if suits and not tracing() and not in_transform() else self.real


@lru_cache(maxsize=64)
def products_of(algebra: Algebra) -> Products:
    """`Products` of an algebra, made once and cached."""
    return Products(algebra)


def _is_complex(algebra: Algebra) -> bool:
    """Whether in each column the weight acts as a complex matrix, its entries in the order of its components."""
    columns = columns_of(algebra)
    if not columns.shared or columns.height % 2:
        return False
    n = columns.height // 2
    wanted = {
        (2 * p + out, 2 * m + right, 2 * (p * n + m) + left, sign)
        for p in range(n)
        for m in range(n)
        for out, left, right, sign in _COMPLEX
    }
    return algebra.size == 2 * n * n and {entry[1:] for entry in WeightForm(algebra).table} == wanted
