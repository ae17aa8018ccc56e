"""Linear layers over an algebra."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..parameters import check_bits, check_dtype, glorot, quantize_parameters_, write_
from .algebras import Algebra, tuples_in
from .forms import check_layout
from .masks import Prunable
from .multiply import products_of


def algebra_linear(
    input: Tensor, weight: Tensor, algebra: str | Algebra, bias: Tensor | None = None, layout: str = "tuples"
) -> Tensor:
    """Every output tuple is the sum over the input tuples of weight . input, as one matrix product (see `multiply`).

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
        TypeError: an input of another dtype than the weight, outside autocast.

    Source: AlgebraNets, section 2.4 and appendix E (the sum of products there, in one call).

    >>> algebra_linear(torch.tensor([0.0, 1.0]), torch.tensor([[[0.0, 1.0]]]), "C")  # i * i = -1
    tensor([-1.,  0.])
    """
    algebra = Algebra.of(algebra)
    check_layout(layout)
    if weight.dim() != 3 or weight.shape[-1] != algebra.size:
        raise ValueError(
            f"weight must be (out_tuples, in_tuples, {algebra.size}) for algebra {algebra}, got {tuple(weight.shape)}"
        )
    check_input(input, weight.shape[1] * algebra.size, weight)
    product = products_of(algebra).choose(input)
    return product.apply(input, weight, bias, layout, product)


def check_input(
    input: Tensor, in_features: int, weight: Tensor, name: str = "in_features", what: str = "input"
) -> None:
    """Raise unless `input` has `in_features` last and the dtype of `weight`.

    The message calls the width `name`, as the layer's argument, and the input `what`.
    """
    if input.dim() == 0 or input.shape[-1] != in_features:
        size = weight.shape[-1]
        raise ValueError(
            f"{what} must have {name}={in_features} last ({in_features // size} tuples of {size}), got shape"
            f" {tuple(input.shape)}"
        )
    check_dtype(input, weight, what)


class AlgebraLayer(Prunable):
    """The base of linear layers and convolutions: one Glorot-initialised weight, and a bias of zeros or none."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    bits: int | None
    layout: str

    def _make_parameters(self, outputs: int, bias: bool, bits: int | None, device: Any, dtype: Any) -> None:
        self.weight = nn.Parameter(self._initial_weight(device, dtype))
        zeros = nn.Parameter(torch.zeros(outputs, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", zeros)
        quantize_parameters_(self, bits)

    def _initial_weight(self, device: Any, dtype: Any) -> Tensor:
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw new values of the weight, and set the bias to zero."""
        write_(self.weight, self._initial_weight(self.weight.device, self.weight.dtype))
        if self.bias is not None:
            write_(self.bias, torch.zeros(self.bias.shape, device=self.bias.device, dtype=self.bias.dtype))

    def _form_shown(self) -> str:
        text = "" if self.bits is None else f", bits={self.bits}"
        return text + ("" if self.layout == "tuples" else f", layout={self.layout!r}")


class AlgebraLinear(AlgebraLayer):
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
        self._products = products_of(self.algebra)
        tuples_in(in_features, self.algebra, "in_features")
        tuples_in(out_features, self.algebra, "out_features")
        self.in_features, self.out_features = in_features, out_features
        self._make_parameters(out_features, bias, bits, device, dtype)

    def _initial_weight(self, device: Any, dtype: Any) -> Tensor:
        out_tuples, in_tuples = self.out_features // self.algebra.size, self.in_features // self.algebra.size
        return glorot((out_tuples, in_tuples, self.algebra.size), in_tuples, out_tuples, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        check_input(input, self.in_features, self.weight)
        product = self._products.choose(input)
        return product.apply(input, self.weight, self.bias, self.layout, product)

    def dense_weight(self) -> Tensor:
        """The real (out_features, in_features) matrix of the layer, in tuple order. Differentiable."""
        return self.algebra.expand(self.weight)

    def extra_repr(self) -> str:
        text = f"{self.in_features}, {self.out_features}, algebra={self.algebra}, bias={self.bias is not None}"
        return text + self._form_shown()
