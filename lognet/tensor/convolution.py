"""Convolutions, transposed or not, whose backward pass keeps codes, not decoded weights (see `functional`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .autograd import in_autocast_dtype, in_transform
from .floats import Form, collapsed, dense, expand_floats, expanded
from .handlers import handles_function

aten = torch.ops.aten
Size = int | Sequence[int]


class _Convolution(Function):
    """Every convolution of torch.nn.functional, transposed or not, through one aten operation and its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None, *geometry: Any) -> Tensor:
        ctx.form, ctx.geometry = form, geometry
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else list(bias.shape)
        return aten.convolution(dense(x), expanded(weight, form), dense(bias), *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_wanted, weight_wanted, bias_wanted = ctx.needs_input_grad[:3]
        wanted = [x_wanted, weight_wanted, bias_wanted and ctx.bias_shape is not None]
        kernel = expanded(weight, ctx.form)
        of = (grad, dense(x), kernel, ctx.bias_shape, *ctx.geometry)
        grad_x, grad_weight, grad_bias = aten.convolution_backward(*of, wanted)
        if weight_wanted:
            grad_weight = collapsed(grad_weight, weight, ctx.form)
        return grad_x, grad_weight, grad_bias, None, *(None for _ in ctx.geometry)


@handles_function(F.conv1d, F.conv2d, F.conv3d)
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    form: Form | None = None,
) -> Tensor:
    """`torch.nn.functional.conv1d`, `conv2d` and `conv3d` for LogTensors, same arguments; string paddings too.

    Args:
        input: (batch, in_channels, *) or unbatched.
        weight: (out_channels, in_channels / groups, *kernel), whose dimensions say whether it is a conv1d, 2d or 3d;
            or a tensor of one dimension more, from which `form` makes that.
        bias: (out_channels,).

    Raises:
        ValueError: a padding that torch does not know, or "same" with a stride.
    """
    if padding == "same":
        n = _kernel_dims(weight, form)
        if any(step != 1 for step in _one_each(stride, n)):
            raise ValueError(f"padding='same' needs stride 1, got {stride}")
        total = [d * (k - 1) for d, k in zip(_one_each(dilation, n), weight.shape[2 : 2 + n], strict=True)]
        if any(t % 2 for t in total):  # an even kernel: the odd element is padded at the end
            input = F.pad(dense(input), [side for t in reversed(total) for side in (0, t % 2)])
        padding = [t // 2 for t in total]
    elif padding == "valid":
        padding = 0
    elif isinstance(padding, str):
        raise ValueError(f"padding must be numbers, 'same' or 'valid', got {padding!r}")
    return _convolve(input, weight, bias, form, stride, padding, dilation, False, 0, groups)


@handles_function(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    form: Form | None = None,
) -> Tensor:
    """`torch.nn.functional.conv_transpose1d`, `2d` and `3d` for LogTensors, same arguments.

    Args:
        input: (batch, in_channels, *) or unbatched.
        weight: (in_channels, out_channels / groups, *kernel), whose dimensions say whether it is 1d, 2d or 3d; or a
            tensor of one dimension more, from which `form` makes that.
        bias: (out_channels,).
    """
    return _convolve(input, weight, bias, form, stride, padding, dilation, True, output_padding, groups)


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None, *geometry: Any) -> Tensor:
    """Any convolution by way of `aten.convolution`; `geometry` are its arguments, as functions of torch take them."""
    weight, form = expand_floats(weight, form)
    input, weight, bias = in_autocast_dtype(input, weight, bias)
    n = _kernel_dims(weight, form)
    *sizes, transposed, output_padding, groups = geometry
    geometry = (*(_one_each(size, n) for size in sizes), transposed, _one_each(output_padding, n), groups)
    batch = input if input.dim() == n + 2 else input.unsqueeze(0)
    if in_transform():
        y = aten.convolution(dense(batch), expanded(weight, form), dense(bias), *geometry)
    else:
        y = _Convolution.apply(batch, weight, bias, form, *geometry)
    return y if batch is input else y.squeeze(0)


def _kernel_dims(weight: Tensor, form: Form | None) -> int:
    return weight.dim() - 2 - (form is not None)


def _one_each(value: Any, n: int) -> list[int]:
    """One number for each of n dimensions, from one number for all of them or from a sequence."""
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values
