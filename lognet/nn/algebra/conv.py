"""Convolution layers over an algebra: 1 to 3 dimensions, transposed, grouped and depthwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...tensor import convolution
from ...tensor.floats import dense
from ..checks import check_count, nearest_divisors
from ..convolution import ConvolutionBase, Size
from ..parameters import check_bits, glorot
from .algebras import Algebra, tuples_in
from .convolve import check_sizes, convolve, form_of
from .forms import check_layout
from .linear import AlgebraLayer


class _AlgebraConv(AlgebraLayer, ConvolutionBase):
    transposed = False
    operation: Callable[..., Tensor] = staticmethod(convolution.conv)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
        layout: str = "tuples",
    ) -> None:
        super().__init__()
        self.algebra, self.bits, self.layout = Algebra.of(algebra), check_bits(bits), check_layout(layout)
        inputs = tuples_in(in_channels, self.algebra, "in_channels")
        outputs = tuples_in(out_channels, self.algebra, "out_channels")
        if inputs % check_count("groups", groups) or outputs % groups:
            raise ValueError(
                f"groups={groups} must divide the tuples of in_channels={in_channels} and out_channels={out_channels},"
                f" {inputs} and {outputs} tuples of {self.algebra.size} (algebra {self.algebra}); for these use"
                f" groups={nearest_divisors(groups, inputs, outputs)}"
            )
        together = 0 if self.transposed or layout == "columns" else inputs // groups
        self._form = form_of(self.algebra, together, self.transposed)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self._set_geometry(kernel_size, stride, padding, dilation, padding_mode)
        self._make_parameters(out_channels, bias, bits, device, dtype)

    def _initial_weight(self, device: Any, dtype: Any) -> Tensor:
        size = self.algebra.size
        first, second = self.out_channels // size, self.in_channels // size
        if self.transposed:
            first, second = second, first
        positions = torch.Size(self.kernel_size).numel()
        shape = (first, second // self.groups, *self.kernel_size, size)
        return glorot(shape, second // self.groups * positions, first // self.groups * positions, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return self._run(*self._padded(input))

    def _run(self, input: Tensor, padding: Any, **more: Any) -> Tensor:
        check_sizes(input, self.weight, self.algebra, self.in_channels // self.algebra.size)
        geometry = {"stride": self.stride, "padding": padding, "dilation": self.dilation, **more}
        return convolve(self.operation, geometry, input, self.weight, self._form, self.bias, self.groups, self.layout)

    def dense_weight(self) -> Tensor:
        """The real kernel, as `torch.nn.convolution.conv2d` (or conv_transpose2d) takes it. Differentiable."""
        if not self.transposed:
            return self.algebra.expand(self.weight)
        parts = dense(self.weight).chunk(self.groups)  # transposed kernels have their groups along the inputs
        return torch.cat([self.algebra.expand(part.transpose(0, 1)).transpose(0, 1) for part in parts])

    def extra_repr(self) -> str:
        return self._shown(f"algebra={self.algebra}") + self._form_shown()


class AlgebraConv1d(_AlgebraConv):
    """`torch.nn.Conv1d` over an algebra: see `AlgebraConv2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype,
            algebra, bits, layout: as in `AlgebraConv2d`.

    Shape: (N, in_channels, L) or (in_channels, L) to (N, out_channels, L') likewise.

    Raises:
        ValueError: as `AlgebraConv2d`.

    >>> AlgebraConv1d(8, 16, 3, padding="same", algebra="C")(torch.ones(2, 8, 10)).shape
    torch.Size([2, 16, 10])
    """

    over = 1


class AlgebraConv2d(_AlgebraConv):
    """A convolution whose weights and activations are tuples of an algebra; arguments as `torch.nn.Conv2d`.

    Args:
        in_channels, out_channels: real scalars, multiples of A; channel = tuple * A + component.
        kernel_size, stride, padding, dilation, padding_mode: as in torch.nn, string paddings too.
        groups: must divide the tuples on both sides; ``groups=in_channels // A`` is depthwise: a tuple by itself.
        bias: add a bias, one number for each output channel.
        device, dtype: as in torch.nn.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B: LogTensor parameters as `lognet.wrap` makes them.
        layout: "tuples"; or "columns": input and output channels are column-outermost (`lognet.nn.to_columns`), so
            that stacked layers need no permutation. Parameters are the same in both.

    Shape: (N, in_channels, H, W) or unbatched to (N, out_channels, H', W'). `weight` is (out_channels / A,
    in_channels / groups / A, kh, kw, A), each component Glorot-initialised by itself; `bias` (out_channels,), zero.

    Raises:
        ValueError: a width that is not a multiple of A (with the nearest that is), groups that do not divide the
            tuples, an unknown algebra, layout, padding or padding mode.

    Source: AlgebraNets, sections 2.3 and 4.1, appendix E.

    >>> layer = AlgebraConv2d(16, 32, 3, padding=1, algebra="M2R")
    >>> layer(torch.ones(2, 16, 5, 5)).shape, layer.weight.shape
    (torch.Size([2, 32, 5, 5]), torch.Size([8, 4, 3, 3, 4]))
    """

    over = 2


class AlgebraConv3d(_AlgebraConv):
    """`torch.nn.Conv3d` over an algebra: see `AlgebraConv2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype,
            algebra, bits, layout: as in `AlgebraConv2d`.

    Shape: (N, in_channels, D, H, W) or unbatched to (N, out_channels, D', H', W').

    Raises:
        ValueError: as `AlgebraConv2d`.

    >>> AlgebraConv3d(4, 8, 2, algebra="H")(torch.ones(1, 4, 3, 3, 3)).shape
    torch.Size([1, 8, 2, 2, 2])
    """

    over = 3


class _AlgebraConvTranspose(_AlgebraConv):
    """Transposed convolutions: torch.nn's order of arguments, and a weight with inputs first."""

    transposed = True
    operation = staticmethod(convolution.conv_transpose)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
        layout: str = "tuples",
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros' for transposed convolutions, got {padding_mode!r}")
        if isinstance(padding, str):
            raise ValueError(f"padding must be an int or a sequence for transposed convolutions, got {padding!r}")
        geometry: tuple[Any, ...] = (kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        super().__init__(in_channels, out_channels, *geometry, algebra=algebra, bits=bits, layout=layout)
        self.output_padding = self._each("output_padding", output_padding)
        limits = [max(sides) for sides in zip(self.stride, self.dilation, strict=True)]
        if any(extra >= limit for extra, limit in zip(self.output_padding, limits, strict=True)):
            raise ValueError(
                f"output_padding={output_padding} must be below the larger of stride and dilation,"
                f" {', '.join(map(str, limits))} here"
            )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """`output_size`, as in torch.nn, chooses among the sizes that the stride leaves open."""
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return self._run(input, self.padding, output_padding=extra)

    def _extra(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        sizes, extra = tuple(output_size)[-self.over :], []
        assert not isinstance(self.padding, str)
        for i, size in enumerate(sizes):
            least = (input.shape[i - self.over] - 1) * self.stride[i] - 2 * self.padding[i]
            least += self.dilation[i] * (self.kernel_size[i] - 1) + 1
            if not least <= size < least + max(self.stride[i], self.dilation[i]):
                limit = least + max(self.stride[i], self.dilation[i]) - 1
                raise ValueError(f"output_size[{i}]={size} must lie between {least} and {limit} for this input")
            extra.append(size - least)
        return tuple(extra)


class AlgebraConvTranspose1d(_AlgebraConvTranspose):
    """`torch.nn.ConvTranspose1d` over an algebra: see `AlgebraConvTranspose2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype, algebra, bits, layout: as in `AlgebraConvTranspose2d`.

    Shape: (N, in_channels, L) or (in_channels, L) to (N, out_channels, L') likewise.

    Raises:
        ValueError: as `AlgebraConv2d`.

    >>> AlgebraConvTranspose1d(8, 16, 4, stride=2, padding=1, algebra="C")(torch.ones(2, 8, 10)).shape
    torch.Size([2, 16, 20])
    """

    over = 1


class AlgebraConvTranspose2d(_AlgebraConvTranspose):
    """A transposed convolution over an algebra: `torch.nn.ConvTranspose2d` with tuples for numbers.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype: as in `torch.nn.ConvTranspose2d`, channels in real numbers, multiples of A.
        algebra, bits, layout: as in `AlgebraConv2d`.

    Shape: (N, in_channels, H, W) or unbatched to (N, out_channels, H', W').

    The weight, (in_channels / A, out_channels / groups / A, kh, kw, A), multiplies from the left here too, so this is
    not the adjoint of an `AlgebraConv2d` with the same weight (that would take the algebra's transpose).

    Raises:
        ValueError: as `AlgebraConv2d`.

    >>> AlgebraConvTranspose2d(8, 16, 2, stride=2, algebra="M2C")(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 16, 10, 10])
    """

    over = 2


class AlgebraConvTranspose3d(_AlgebraConvTranspose):
    """`torch.nn.ConvTranspose3d` over an algebra: see `AlgebraConvTranspose2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype, algebra, bits, layout: as in `AlgebraConvTranspose2d`.

    Shape: (N, in_channels, D, H, W) or unbatched to (N, out_channels, D', H', W').

    Raises:
        ValueError: as `AlgebraConv2d`.

    >>> AlgebraConvTranspose3d(4, 4, 2, algebra="D4")(torch.ones(1, 4, 2, 2, 2)).shape
    torch.Size([1, 4, 3, 3, 3])
    """

    over = 3


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, _AlgebraConv)
"""Every convolution, real or over an algebra; those of an algebra include the transposed ones."""
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, _AlgebraConvTranspose)
