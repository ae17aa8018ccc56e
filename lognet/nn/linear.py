"""Linear layers over an algebra."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import autograd
from ..autograd import dense
from .algebra import Algebra, tuples_in
from .forms import WeightForm, check_layout, columns_of, from_columns, to_columns
from .parameters import check_bits, glorot, make_parameter, write_


def algebra_linear(
    input: Tensor, weight: Tensor, algebra: str | Algebra, bias: Tensor | None = None, layout: str = "tuples"
) -> Tensor:
    """Every output tuple is the sum over the input tuples of weight . input, as one matrix product (see `forms`).

    Args:
        input: (*, in_features), feature = tuple * A + component; column-outermost if ``layout="columns"``.
        weight: (out_features / A, in_features / A, A), float or LogTensor, of which the graph keeps codes only.
        algebra: name or Algebra.
        bias: (out_features,), in tuple order in both layouts.
        layout: "tuples", or "columns" for input and output in column-outermost order, without any permutation.

    Returns:
        (*, out_features).

    Raises:
        ValueError: sizes that do not fit the weight, or an unknown layout.

    Source: AlgebraNets, section 2.4 and appendix E (the sum of products there, in one call).

    >>> import torch
    >>> algebra_linear(torch.tensor([0.0, 1.0]), torch.tensor([[[0.0, 1.0]]]), "C")  # i * i = -1
    tensor([-1.,  0.])
    """
    algebra = Algebra.of(algebra)
    check_layout(layout)
    if weight.dim() != 3 or weight.shape[-1] != algebra.size:
        raise ValueError(
            f"weight must be (out_tuples, in_tuples, {algebra.size}) for algebra {algebra}, got {tuple(weight.shape)}"
        )
    out_tuples, in_tuples, size = weight.shape
    if input.dim() == 0 or input.shape[-1] != in_tuples * size:
        raise ValueError(
            f"input must have in_features={in_tuples * size} last ({in_tuples} tuples of {size}), got shape"
            f" {tuple(input.shape)}"
        )
    columns = columns_of(algebra)
    form = WeightForm(algebra, batched=not columns.shared)
    if columns.trivial:
        return autograd.linear(input, weight, bias, form)
    leading, n = input.shape[:-1], columns.columns
    x = to_columns(input, algebra) if layout == "tuples" else input
    x = x.reshape(-1, n, in_tuples * columns.height)
    if columns.shared:
        y = autograd.linear(x, weight, None, form)
    else:
        y = autograd.matmul(x.transpose(0, 1), weight, form).transpose(0, 1)
    y = y.reshape(*leading, out_tuples * size)
    y = from_columns(y, algebra) if layout == "tuples" else y
    if bias is None:
        return y
    bias = dense(bias).to(y.dtype)
    return y + (bias if layout == "tuples" else to_columns(bias, algebra))


class AlgebraLinear(nn.Module):
    """A linear layer whose weights and activations are tuples of an algebra; in and out as `torch.nn.Linear`.

    A d_in x d_out layer has d_in * d_out / A parameters (and d_out biases), and `Algebra.multiplies` / A^2 times the
    multiplications of a real one.

    Args:
        in_features, out_features: real scalars, multiples of A; feature = tuple * A + component.
        bias: add a bias, one number for each output feature.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B: LogTensor parameters as `lognet.wrap` makes them.
        layout: "tuples"; or "columns": input and output are column-outermost (`lognet.nn.to_columns`), so that stacked
            layers of M_n(R), M_2(C) or D_N need no permutation. Parameters are the same in both.
        device, dtype: as in torch.nn.

    Shape: (*, in_features) to (*, out_features). `weight` is (out_features / A, in_features / A, A), `bias`
    (out_features,), zero at first; each component of the weight is Glorot-initialised by itself.

    Raises:
        ValueError: a width that is not a multiple of A (with the nearest that is), an unknown algebra or layout.

    Source: AlgebraNets, sections 2.3 and 2.4.

    >>> import torch
    >>> layer = AlgebraLinear(64, 128, algebra="H")
    >>> layer(torch.ones(2, 64)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([2, 128]), 2176)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
        layout: str = "tuples",
    ) -> None:
        super().__init__()
        self.algebra, self.bits, self.layout = Algebra.of(algebra), check_bits(bits), check_layout(layout)
        tuples_in(in_features, self.algebra, "in_features")
        tuples_in(out_features, self.algebra, "out_features")
        self.in_features, self.out_features = in_features, out_features
        self._like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = make_parameter(self._initial_weight(), bits)
        if bias:
            self.bias = make_parameter(self._initial_weight().new_zeros(out_features), bits)
        else:
            self.register_parameter("bias", None)
        del self._like

    def _initial_weight(self) -> Tensor:
        out_tuples, in_tuples = self.out_features // self.algebra.size, self.in_features // self.algebra.size
        like = self.__dict__.get("_like") or {"device": self.weight.device, "dtype": self.weight.dtype}
        return glorot((out_tuples, in_tuples, self.algebra.size), in_tuples, out_tuples, **like)

    def reset_parameters(self) -> None:
        """Draw the weight anew, and set the bias to zero."""
        write_(self.weight, self._initial_weight())
        if self.bias is not None:
            write_(self.bias, self.bias.new_zeros(self.bias.shape))

    def forward(self, input: Tensor) -> Tensor:
        return algebra_linear(input, self.weight, self.algebra, self.bias, self.layout)

    def dense_weight(self) -> Tensor:
        """The real (out_features, in_features) matrix of the layer, in tuple order. Differentiable."""
        return self.algebra.expand(self.weight)

    def extra_repr(self) -> str:
        """The arguments that are not defaults."""
        text = f"{self.in_features}, {self.out_features}, algebra={self.algebra}, bias={self.bias is not None}"
        text += "" if self.bits is None else f", bits={self.bits}"
        return text + ("" if self.layout == "tuples" else f", layout={self.layout!r}")
