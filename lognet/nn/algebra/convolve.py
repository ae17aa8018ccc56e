"""Convolutions over an algebra as functions. Each makes one convolution call, in the form that suits the algebra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...tensor import convolution
from ...tensor.floats import dense
from ..convolution import Size
from ..parameters import check_dtype
from .algebras import Algebra
from .forms import WeightForm, check_layout, columns_of, one_column


def algebra_conv(
    input: Tensor,
    weight: Tensor,
    algebra: str | Algebra,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    layout: str = "tuples",
) -> Tensor:
    """A convolution whose products are those of an algebra, as one convolution call (see `forms`).

    Args:
        input: (batch, in_channels, *) or unbatched, channel = tuple * A + component; column-outermost if
            ``layout="columns"``, and then without any permutation.
        weight: (out_channels / A, in_channels / groups / A, *kernel, A), float or LogTensor; its dimensions say over
            how many to convolve.
        algebra: name or Algebra.
        bias: (out_channels,), in tuple order in both layouts.
        stride, padding, dilation, groups: as in `torch.nn.convolution.conv2d`; groups divides the tuples.
        layout: "tuples" or "columns".

    Raises:
        ValueError: sizes that do not fit the weight, or an unknown layout.
        TypeError: an input of another dtype than the weight, outside autocast.

    Source: AlgebraNets, appendix E (the sum of convolutions there, in one call).

    >>> import torch
    >>> x, w = torch.ones(1, 4, 5), torch.ones(3, 1, 2, 4)
    >>> algebra_conv(x, w, "M2R").shape
    torch.Size([1, 12, 4])
    """
    algebra = Algebra.of(algebra)
    check_sizes(input, weight, algebra, weight.shape[1] * groups if weight.dim() > 2 else 0)
    check_layout(layout)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    form = form_of(algebra, weight.shape[1] if layout == "tuples" else 0)
    return convolve(convolution.conv, geometry, input, weight, form, bias, groups, layout)


def algebra_conv_transpose(
    input: Tensor,
    weight: Tensor,
    algebra: str | Algebra,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    layout: str = "tuples",
) -> Tensor:
    """`algebra_conv` transposed, as `torch.nn.convolution.conv_transpose2d` is to `conv2d`.

    Args:
        input, algebra, bias, layout: as in `algebra_conv`.
        weight: (in_channels / A, out_channels / groups / A, *kernel, A); it still multiplies from the left.
        stride, padding, output_padding, groups, dilation: as in `torch.nn.convolution.conv_transpose2d`.

    Raises:
        ValueError: sizes that do not fit the weight, or an unknown layout.
        TypeError: an input of another dtype than the weight, outside autocast.

    >>> import torch
    >>> algebra_conv_transpose(torch.ones(1, 4, 5), torch.ones(1, 3, 2, 4), "H").shape
    torch.Size([1, 12, 6])
    """
    algebra = Algebra.of(algebra)
    check_sizes(input, weight, algebra, weight.shape[0])
    check_layout(layout)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": output_padding}
    form = WeightForm(algebra, transposed=True)
    return convolve(convolution.conv_transpose, geometry, input, weight, form, bias, groups, layout)


def form_of(algebra: Algebra, tuples: int, transposed: bool = False) -> WeightForm:
    """The form of a convolution with so many input tuples in a group.

    Depthwise convolutions use the dense expansion if columns are higher than two, because groups of few channels are
    slow.
    """
    columns = columns_of(algebra)
    dense_instead = tuples == 1 and columns.shared and columns.height > 2
    return WeightForm(algebra, transposed, columns=one_column(algebra) if dense_instead else None)


def convolve(
    operation: Callable[..., Tensor],
    geometry: dict[str, Any],
    input: Tensor,
    weight: Tensor,
    form: WeightForm,
    bias: Tensor | None,
    groups: int,
    layout: str,
) -> Tensor:
    """A convolution of columns: shared ones are a dimension of space or join the batch, others become groups."""
    columns, over = form.columns, weight.dim() - 3
    if columns.trivial:
        return operation(input, weight, bias, **geometry, groups=groups, form=form)
    batched = input.dim() == over + 2
    x = input if batched else input.unsqueeze(0)
    if columns.shared and columns.inner == 1 and over < 3 and layout == "tuples":
        # channels (tuple, row, column): the column is one more dimension of space, over which the kernel is 1 wide
        deep = {name: _deep(value, *_NEUTRAL[name], over) for name, value in geometry.items()}
        x = x.unflatten(1, (-1, columns.columns))
        y = operation(x, weight.unsqueeze(2), None, **deep, groups=groups, form=form).flatten(1, 2)
    else:
        x = columns.outermost(x, 1) if layout == "tuples" else x
        batch, channels, *space = x.shape
        if columns.shared:
            x = x.reshape(batch * columns.columns, channels // columns.columns, *space)
            y = operation(x, weight, None, **geometry, groups=groups, form=form)
            y = y.reshape(batch, y.shape[1] * columns.columns, *y.shape[2:])
        else:
            y = operation(x, weight, None, **geometry, groups=groups * columns.columns, form=form)
        y = columns.innermost(y, 1) if layout == "tuples" else y
    if bias is not None:
        bias = dense(bias).to(y.dtype)
        bias = bias if layout == "tuples" else columns.outermost(bias, -1)
        y = y + bias.reshape(-1, *[1] * over)
    return y if batched else y.squeeze(0)


_NEUTRAL = {"stride": (1,), "padding": (0,), "dilation": (1,), "output_padding": (0,)}


def _deep(value: Any, first: int, over: int) -> Any:
    """The argument of a convolution with one more dimension, the first, with the neutral value `first` there."""
    if isinstance(value, str):
        return value
    values = [value] if isinstance(value, int) else list(value)
    return [first, *(values * over if len(values) == 1 else values)]


def check_sizes(input: Tensor, weight: Tensor, algebra: Algebra, in_tuples: int) -> None:
    over = weight.dim() - 3
    if over not in (1, 2, 3) or weight.shape[-1] != algebra.size:
        raise ValueError(
            f"weight must be (tuples, tuples, *kernel, {algebra.size}) for algebra {algebra} with 1 to 3 kernel"
            f" dimensions, got {tuple(weight.shape)}"
        )
    channel = input.dim() - over - 1
    if channel not in (0, 1) or input.shape[channel] != in_tuples * algebra.size:
        raise ValueError(
            f"input must be (batch, channels, *) or (channels, *) with {in_tuples * algebra.size} channels"
            f" ({in_tuples} tuples of {algebra.size}) and {over} dimensions after them, got {tuple(input.shape)}"
        )
    check_dtype(input, weight)
