"""Fixed-point, floating-point and block floating-point quantizers, rounded by qtorch (the extra ``lognet[quant]``).

qtorch compiles its C++ when it is first imported, which takes half a minute once; here it is imported at the first call.
It takes float32 only, turns NaN and infinity into its largest number, drops gradients, and draws the random bits of
stochastic rounding from a generator that cannot be seeded. This file does what is missing. Stochastic rounding is done
here, onto the numbers of the format, and qtorch then rounds to the nearest.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .quantizers import Quantizer, check_int, power_of_two_above


@cache
def qtorch_functions() -> Any:
    """The module `qtorch.quant`.

    Raises:
        ImportError: it is not installed, or its C++ could not be compiled; the message says what to do.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on the compiler that it finds
            import qtorch.quant
    except Exception as error:  # of many kinds: no module, no ninja, no compiler, whatever the compiler says
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ImportError(
            f"the fixed, float and block quantizers need qtorch, which could not be loaded ({reason})."
            ' Install it with: pip install "lognet[quant]". It compiles C++ when first imported: a C++ compiler (g++) and'
            " ninja must be on the PATH (activate the virtual environment that ninja is in)"
        ) from error
    return qtorch.quant


class _QtorchQuantizer(Quantizer):
    """Scale by a power of two, draw, let qtorch round, scale back."""

    def load(self) -> None:
        qtorch_functions()

    @torch._disable_dynamo  # type: ignore[attr-defined]  # torch.compiler.disable, which would import the compiler now
    def _round(self, y: Tensor) -> Tensor:
        largest = torch.finfo(torch.float32).max
        x = y.clamp(-largest, largest).to(torch.float32)
        scale = power_of_two_above(x) / self._top()
        x = x / scale
        draw = self._draw(x)
        if draw is not None:
            quantum = self._quantum(x)
            steps = x / quantum
            below = steps.floor()
            steps = below + (draw <= steps - below)  # the draw is never 0: numbers of the format stay
            x = steps.clamp(-self._most_steps(), self._most_steps()) * quantum
        return (self._nearest(x) * scale).to(y.dtype)

    def _top(self) -> float:
        """The power of two in the format to which the smallest power of two above a tensor is scaled."""
        return 1.0

    def _quantum(self, x: Tensor) -> Tensor | float:
        """The spacing of the format's numbers around each value of `x`."""
        raise NotImplementedError

    def _most_steps(self) -> float:
        """The largest stochastically rounded number, in quanta, that qtorch may be given."""
        return math.inf

    def _nearest(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class FixedQuantizer(_QtorchQuantizer):
    """Fixed point in two's complement: multiples of one quantum from -2^(bits - 1) to 2^(bits - 1) - 1 of them.

    For every tensor the binary point moves so that the numbers reach from -s to s, less a quantum, where s is the
    smallest power of two that no finite value exceeds. Only s itself can saturate.

    Args:
        bits: all of them, the sign included, 2 to 16.
        rounding, seed: as in `Quantizer`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of bounds.
        ImportError: at the first call, where qtorch is missing or cannot be compiled.

    Source: qtorch (Zhang et al. 2019, "QPyTorch"), `fixed_point_quantize` with ``wl=bits, fl=bits - 1``.

    >>> str(FixedQuantizer(bits=6))
    'fixed6'
    """

    bits: int = 8
    rounding: str = "nearest"
    seed: int = 0

    format = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 2, 16)

    def _quantum(self, x: Tensor) -> float:
        return 2.0 ** (1 - self.bits)

    def _nearest(self, x: Tensor) -> Tensor:
        return qtorch_functions().fixed_point_quantize(x, self.bits, self.bits - 1, rounding="nearest")


@dataclass(frozen=True)
class FloatQuantizer(_QtorchQuantizer):
    """Floating point with few bits: a sign, `exponent` and `mantissa` bits, with subnormal numbers.

    No code is reserved for infinity or NaN, so E4M3 reaches to 480. Every tensor is scaled by a power of two so that its
    largest value lies in the binade below the format's last. 8-bit floats are used with such a scaling, because small
    gradients would vanish without it.

    Args:
        exponent: bits, 2 to 8; 4 for E4M3, the usual format of activations, 5 for E5M2, that of gradients.
        mantissa: bits, 1 to 10.
        rounding, seed: as in `Quantizer`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of bounds.
        ImportError: at the first call, where qtorch is missing or cannot be compiled.

    Source: qtorch (Zhang et al. 2019, "QPyTorch"), `float_quantize`; Sun et al. 2019 (HFP8) for the two formats.

    >>> str(FloatQuantizer(4, 3)), str(FloatQuantizer(5, 2))
    ('float8', 'e5m2')
    """

    exponent: int = 4
    mantissa: int = 3
    rounding: str = "nearest"
    seed: int = 0

    format = "float"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("exponent", self.exponent, 2, 8)
        check_int("mantissa", self.mantissa, 1, 10)

    def __str__(self) -> str:
        return "float8" if (self.exponent, self.mantissa) == (4, 3) else f"e{self.exponent}m{self.mantissa}"

    def _top(self) -> float:
        return 2.0 ** min(2 ** (self.exponent - 1), 24)

    def _quantum(self, x: Tensor) -> Tensor:
        binade = torch.frexp(x).exponent - 1
        return torch.ldexp(torch.ones_like(x), binade.clamp(min=2 - 2 ** (self.exponent - 1)) - self.mantissa)

    def _nearest(self, x: Tensor) -> Tensor:
        return qtorch_functions().float_quantize(x, self.exponent, self.mantissa, rounding="nearest")


@dataclass(frozen=True)
class BlockQuantizer(_QtorchQuantizer):
    """Block floating point: the fixed-point numbers of a block share the exponent of its largest number.

    Args:
        bits: of a number, the sign included, 3 to 16; the exponents of the blocks come in addition.
        dim: each index of this dimension is a block; 0 gives every example of a batch an exponent of its own, None the
            whole tensor one. A tensor without that dimension is one block.
        rounding, seed: as in `Quantizer`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of bounds.
        ImportError: at the first call, where qtorch is missing or cannot be compiled.

    Source: qtorch (Zhang et al. 2019, "QPyTorch"), `block_quantize` with ``wl=bits``.

    >>> str(BlockQuantizer(bits=8, dim=None))
    'block8'
    """

    bits: int = 8
    dim: int | None = 0
    rounding: str = "nearest"
    seed: int = 0

    format = "block"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 3, 16)
        if self.dim is not None:
            check_int("dim", self.dim, 0, 63)

    def _dim(self, x: Tensor) -> int:
        """As qtorch has it: -1 for one block."""
        return -1 if self.dim is None or self.dim >= x.dim() else self.dim

    def _quantum(self, x: Tensor) -> Tensor:
        dim = self._dim(x)
        others = [d for d in range(x.dim()) if d != dim]
        largest = x.abs().amax(others, keepdim=True) if others else x.abs()
        return torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1 - (self.bits - 2))

    def _most_steps(self) -> float:
        return 2.0 ** (self.bits - 1) - 1  # one more would be an octave up, and qtorch would double the block's quantum

    def _nearest(self, x: Tensor) -> Tensor:
        return qtorch_functions().block_quantize(x, self.bits, self._dim(x), rounding="nearest")
