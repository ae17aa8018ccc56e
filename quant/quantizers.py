"""Quantizers of activations and gradients: their common part, and the log format.

A quantizer is an immutable description of a number format and a rounding, called on a tensor. It holds no tensor and no
counter, so it copies, pickles and compares like a number. The result is a simulation: its values are those of the
format, and the tensor that holds them keeps its dtype.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from .log_format import LogFormat, eight_octaves
from .random_bits import check_rounding, content_key, uniform
from .tracing import cached_table, kept_whole

LARGEST_SCALE, SMALLEST_SCALE = 2.0**127, 2.0**-100


class Quantizer:
    """What the quantizers share: how they are called, what they do with NaN and infinity, and the random bits.

    ``quantizer(x)`` rounds the values of `x` to the format; its gradient is that of the identity (straight-through, also
    where a value saturates). ``quantizer.backward(x)`` is the identity whose gradient is rounded. Both take float16,
    bfloat16, float32 and float64 and give the same dtype and shape. NaN stays NaN, an infinity stays that infinity, and
    neither affects the scale of the other values.

    Attributes:
        rounding: "nearest", or "stochastic": up or down at random, so that the mean is the value itself.
        seed: of stochastic rounding. Its random bits are a pure function of this seed and of the tensor's own values
            (`lognet.quant.random_bits.content_key`), so there is no counter to save or to restore. A resumed run, a
            recomputed forward pass and every replica draw the same bits for the same tensor.

    Raises:
        ValueError: an unknown rounding.
        TypeError: a seed that is not an int; when called, something that is not a floating tensor.

    >>> isinstance(LogQuantizer(8), Quantizer)
    True
    """

    rounding: str
    seed: int
    format: ClassVar[str]  # the name of the number format

    def __post_init__(self) -> None:
        check_rounding(self.rounding)
        check_int("seed", self.seed)

    def __str__(self) -> str:
        return f"{self.format}{getattr(self, 'bits', '')}"

    def __call__(self, x: Tensor) -> Tensor:
        """`x` rounded to the format; the gradient passes as it is.

        Raises:
            TypeError: `x` is not a floating tensor.
        """
        check_floating(x)
        return _Rounded.apply(x, self)

    def backward(self, x: Tensor) -> Tensor:
        """`x` as it is; its gradient is rounded to the format.

        Raises:
            TypeError: `x` is not a floating tensor.
        """
        check_floating(x)
        return _GradientRounded.apply(x, self)

    def quantize(self, x: Tensor) -> Tensor:
        """The rounded values, detached from autograd."""
        if x.numel() == 0:
            return x.detach().clone()
        y = x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        finite = y.isfinite()
        rounded = self._round(torch.where(finite, y, 0).contiguous())
        largest = torch.finfo(x.dtype).max  # rounding up may leave the dtype's range
        return torch.where(finite, rounded.clamp_(-largest, largest).to(x.dtype), x.detach())

    def _round(self, y: Tensor) -> Tensor:
        """Finite float32 or float64 values, contiguous, rounded."""
        raise NotImplementedError

    def load(self) -> None:
        """Load what the format needs, so that an error comes now rather than at the first call."""

    def _draw(self, y: Tensor) -> Tensor | None:
        """Uniform on (0, 1], y's shape, for stochastic rounding; None for nearest."""
        if self.rounding == "nearest":
            return None
        return uniform(y.numel(), content_key(y, self.seed), y.dtype, y.device).view(y.shape)

    def describe(self) -> dict[str, Any]:
        """All of it as numbers, texts and None, by name: what files and reports keep."""
        return {"format": self.format, **asdict(self)}  # type: ignore[call-overload]  # every format is a dataclass


@dataclass(frozen=True)
class LogQuantizer(Quantizer):
    """A sign and a B-bit exponent on a ladder in log space, with zero: ``sign * scale * exp(-k * base_precision)``.

    The last of the 2^B exponents means zero, the others are rungs. With the sign a number has B + 1 bits, as a weight of
    `lognet.wrap` has. Rounding is to the nearest value, or to one of the two around it, drawn without bias. That includes
    the gap between the last rung and zero.

    The scale is the smallest power of two that no finite value of the tensor exceeds, computed for every tensor. One scale
    for a tensor is enough, where fixed point would need one for each block, because on a ladder the scale decides only which
    numbers are too small, not how fine they are. By default an octave has a whole number of rungs, so the rungs of all
    scales lie on one grid: the rungs that the values of an example round to do not depend on the rest of the batch, and
    rounding twice is rounding once.

    Args:
        bits: B, 2 to 16.
        base_precision: spacing of the rungs in nats. Default: ``ln 2 / 2^(bits - 4)``: 16 octaves at every width, twice as
            many as weights have or more (activations, and gradients more so, spread wider): at 8 bits, 16 rungs to the
            octave, and a relative error of at most 2.2%.
        rounding, seed: as in `Quantizer`.

    Values above 2^127 (of float64, bfloat16) saturate there. A tensor whose largest value is below 2^-100 has the scale
    2^-100.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of bounds.

    Source: Bernstein et al. 2020, section 4.1, for the ladder (`bits` is B, `base_precision` is eta_0); the paper keeps
    activations and gradients in full precision.

    >>> LogQuantizer(bits=4)(torch.tensor([1.0, -0.3, 0.0, 1e-9]))  # one rung to the octave
    tensor([ 1.0000, -0.2500,  0.0000,  0.0000])
    """

    bits: int = 8
    base_precision: float = None  # type: ignore[assignment]  # None is resolved below
    rounding: str = "nearest"
    seed: int = 0

    format = "log"

    def __post_init__(self) -> None:
        super().__post_init__()
        ladder = LogFormat(self.bits, self.base_precision)
        precision = 2 * eight_octaves(self.bits) if self.base_precision is None else ladder.base_precision
        object.__setattr__(self, "base_precision", precision)

    @cached_table
    def magnitudes(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The 2^B magnitudes in units of the scale, largest first, zero last."""
        k = torch.arange(2**self.bits, dtype=torch.float64, device=device)
        table = (k * -self.base_precision).exp_()
        return kept_whole(torch.where(k < 2**self.bits - 1, table, 0).to(dtype))

    def _round(self, y: Tensor) -> Tensor:
        scale = power_of_two_above(y)
        rungs = self.magnitudes(y.dtype, y)
        unit = (y.abs() / scale).clamp_(max=1)
        k = round_to_rungs(unit, rungs, self.base_precision, self._draw(y))
        return (rungs.index_select(0, k.view(-1)).view(y.shape) * scale).copysign(y)


def power_of_two_above(y: Tensor) -> Tensor:
    """The smallest power of two that no |y| exceeds, 0-dim, of y's dtype, within 2^-100 .. 2^127."""
    largest = y.abs().amax().to(torch.float32).clamp(SMALLEST_SCALE, LARGEST_SCALE)
    bits = largest.view(torch.int32)
    return ((bits + 0x7FFFFF) & ~0x7FFFFF).view(torch.float32).to(y.dtype)  # a carry out of the fraction is an octave


def round_to_rungs(y: Tensor, rungs: Tensor, base_precision: float, u: Tensor | None = None) -> Tensor:
    """The number k of one of the two rungs around y.

    The table is made once in float64. From there on comparisons, differences and one product decide, so that the result is the
    same on every device.

    Args:
        y: any shape, from 0 to 1, floating.
        rungs: 1-D, descending, of y's dtype; ``rungs[k]`` is exp(-k * base_precision), but the last may be 0.
        base_precision: eta_0; it only says where to look in the table.
        u: None rounds to the nearest rung in value, of two equally near ones to the upper. Random numbers uniform on (0, 1], of
            y's shape, round such that the mean of ``rungs[k]`` is y.

    Returns:
        int32, y's shape. Below the last rung, that one.

    >>> rungs = torch.tensor([1.0, 0.5, 0.25])
    >>> round_to_rungs(torch.tensor([1.0, 0.7, 0.3, 0.0]), rungs, 0.6931).tolist()
    [0, 1, 2, 2]
    """
    upper, lower = rungs[:-1], rungs[1:]
    last = len(upper) - 1
    guess = y.log().mul_(-1 / base_precision).clamp_(0, last).to(torch.int32).view(-1)
    flat = y.reshape(-1)
    off = (flat <= lower.index_select(0, guess)).to(torch.int32)
    off -= (flat > upper.index_select(0, guess)).to(torch.int32)
    k = guess.add_(off).clamp_(0, last)  # the logarithm is one off at most, and only next to a rung
    above, below = upper.index_select(0, k), lower.index_select(0, k)
    share = 0.5 if u is None else u.reshape(-1)
    return (k + (flat - below < share * (above - below)).to(torch.int32)).view(y.shape)


class _Rounded(Function):
    """Rounds forward, the identity backward."""

    @staticmethod
    def forward(x: Tensor, quantizer: Quantizer) -> Tensor:
        return quantizer.quantize(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, quantizer: Quantizer) -> tuple[Tensor, int]:
        return _Rounded.apply(x, quantizer), in_dims[0]  # the batch is one tensor, as it is without vmap


class _GradientRounded(Function):
    """The identity forward, rounds backward."""

    @staticmethod
    def forward(x: Tensor, quantizer: Quantizer) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.quantizer = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Rounded.apply(grad, ctx.quantizer), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, quantizer: Quantizer) -> tuple[Tensor, int]:
        return _GradientRounded.apply(x, quantizer), in_dims[0]


def check_floating(x: Tensor) -> None:
    """Raise TypeError if `x` is not a real floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"a quantizer takes a torch.Tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    if not x.is_floating_point():
        raise TypeError(f"a quantizer takes a floating tensor, got {x.dtype}; convert it first, for example x.float()")


def check_int(name: str, value: int, low: int | None = None, high: int | None = None) -> int:
    """Return `value` if it is an int from `low` to `high`, else raise TypeError or ValueError."""
    bounds = "" if low is None else f" from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int{bounds}, got {value!r}")
    if low is not None and high is not None and not low <= value <= high:
        raise ValueError(f"{name} must be{bounds}, got {value}")
    return value
