"""What the convolutions of both layer families share: the geometry of `torch.nn`, its checks and its padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_count

Size = int | Sequence[int]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class ConvolutionBase(nn.Module):
    """The base of the convolutions; `over` is the number of dimensions."""

    over: int
    in_channels: int
    out_channels: int
    groups: int
    bias: nn.Parameter | None

    def _set_geometry(self, kernel_size: Size, stride: Size, padding: Size | str, dilation: Size, mode: str) -> None:
        if mode not in PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(map(repr, PADDING_MODES))}, got {mode!r}")
        self.kernel_size, self.stride = self._each("kernel_size", kernel_size), self._each("stride", stride)
        self.dilation, self.padding_mode = self._each("dilation", dilation), mode
        self.padding: str | tuple[int, ...] = padding if isinstance(padding, str) else self._each("padding", padding)
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"padding must be an int, a sequence, 'same' or 'valid', got {padding!r}")
        if padding == "same" and max(self.stride) > 1:
            raise ValueError(f"padding='same' needs stride 1, got {self.stride}")

    def _each(self, name: str, value: Size) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, Sequence) else (value,) * self.over
        if len(values) != self.over:
            raise ValueError(f"{name} must be an int or {self.over} of them, got {value!r}")
        return tuple(check_count(name, n, least=0 if name.endswith("padding") else 1) for n in values)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input, padded unless with zeros, and the padding that is left to the convolution."""
        if self.padding_mode == "zeros":
            return input, self.padding
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [side for t in reversed(totals) for side in (t // 2, t - t // 2)]
        else:
            padding = (0,) * self.over if isinstance(self.padding, str) else self.padding
            sides = [p for p in reversed(padding) for _ in range(2)]
        return F.pad(input, sides, mode=self.padding_mode), 0

    def _shown(self, kind: str) -> str:
        """The arguments that are not defaults, and the kind of the products."""
        text = f"{self.in_channels}, {self.out_channels}, {kind}, kernel_size={self.kernel_size}"
        defaults = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
        for name, default in defaults.items():
            value = getattr(self, name, default)  # only transposed convolutions have an output_padding
            text += "" if value in (default, (default,) * self.over) else f", {name}={value}"
        text += "" if self.groups == 1 else f", groups={self.groups}"
        text += "" if self.bias is not None else ", bias=False"
        return text + ("" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode}")
