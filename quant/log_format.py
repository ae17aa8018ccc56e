"""The ladder: how a real number becomes a sign and a B-bit exponent, and back.

A weight is ``w = sign * scale * exp(-k * base_precision)`` with k in 0 .. 2^B - 1 (Bernstein et al. 2020, section
4.1): k = 0 is the top rung, `scale` (the paper's sigma*), and each rung below is smaller by the factor
``exp(-base_precision)`` (the paper's eta_0). The ladder has no zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .tracing import cached_table, kept_whole

MIN_BITS, MAX_BITS = 2, 16
_FLOAT32 = torch.finfo(torch.float32)


def check_positive(name: str, value: float) -> float:
    """Return `value` as a float if it is a positive finite number, else raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a positive finite number, got {value!r} of type {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)


def default_base_precision(bits: int) -> float:
    """ln 2 / 2^(bits - 3), 2^(bits - 3) rungs to the octave, from 7 bits on; below, two thirds of it.

    From 7 bits on the ladder has eight octaves, and more bits give finer rungs. With 6 bits and fewer it has 5 1/3 octaves less a
    rung, with 3 * 2^(bits - 4) rungs to each, because fine rungs help more there than small weights (docs/quality.md).

    Args:
        bits: B, 2 to 16; `LogFormat` checks it.

    >>> round(default_base_precision(8), 4), round(math.log2(LogFormat(8).range), 2)  # nats; octaves
    (0.0217, 7.97)
    >>> [round(math.log(2) / default_base_precision(bits), 1) for bits in (3, 4, 6, 7, 8)]  # rungs to the octave
    [1.5, 3.0, 12.0, 16.0, 32.0]
    """
    return eight_octaves(bits) * (1.0 if bits > 6 else 2.0 / 3.0)


def eight_octaves(bits: int) -> float:
    """The spacing of 2^(bits - 3) rungs to the octave."""
    return math.log(2.0) * 2.0 ** (3 - bits)


def typical_magnitude(x: Tensor) -> float:
    """sigma, the scale on which a parameter lives: its root mean square.

    An all-zero tensor (a fresh bias) has no scale, and a multiplicative rule would never move it, so its sigma is
    `ZERO_SIGMA`. So is that of a tensor whose root mean square is below 2^-100, far below any trained weight.

    >>> typical_magnitude(torch.tensor([3.0, -3.0, 3.0, -3.0])), typical_magnitude(torch.zeros(5)) == ZERO_SIGMA
    (3.0, True)
    """
    largest = largest_magnitude(x)
    if largest < 2.0**-100:
        return ZERO_SIGMA
    unit = largest if x.dtype == torch.float64 else 1.0  # squares of narrower dtypes do not overflow float64
    parts = (part / unit if unit != 1 else part for part in in_pieces(x))
    norms = [float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts]
    return unit * math.sqrt(math.fsum(norm * norm for norm in norms) / x.numel())


def largest_magnitude(x: Tensor) -> float:
    """max |x|; 0 of an empty tensor, NaN if x holds NaN."""
    found = [bound for part in in_pieces(x) if part.numel() for bound in torch.aminmax(part)]
    return float(torch.stack(found).abs().max()) if found else 0.0


def in_pieces(x: Tensor) -> tuple[Tensor, ...]:
    """The numbers of x, flat and detached, `PIECE` at a time, because temporaries take many times the memory of a piece.

    >>> [len(part) for part in in_pieces(torch.zeros(PIECE + 1))] == [PIECE, 1]
    True
    """
    return x.detach().reshape(-1).split(PIECE)


PIECE = 2**20  # a multiple of eight, where packed planes have byte boundaries
ZERO_SIGMA = 0.1
P_SCALE = 12.0
"""The default top of a ladder in units of sigma: octaves are cheap in log space, and trained weights have long tails."""


def parameter_scale(x: Tensor, p_scale: float = P_SCALE) -> float:
    """sigma* for a parameter: ``p_scale`` times its typical magnitude, and never below its largest value.

    So fresh weights can grow, and trained weights are never clipped.

    >>> parameter_scale(torch.tensor([1.0, -1.0]), 3.0), parameter_scale(torch.tensor([1.0] * 99 + [7.0]), 0.5)
    (3.0, 7.0)
    """
    return max(p_scale * typical_magnitude(x), largest_magnitude(x))


@dataclass(frozen=True)
class LogFormat:
    """A ladder without its scale: a bit width and a rung spacing.

    Args:
        bits: B, bits of the exponent, 2 to 16; the sign is one more.
        base_precision: eta_0, the spacing of the rungs in natural-log units (relative rounding error is at most
            about half of it). Default None: `default_base_precision(bits)`.

    Raises:
        TypeError: `bits` is not an int or `base_precision` not a number.
        ValueError: `bits` outside 2 to 16, `base_precision` not positive and finite, rungs closer than float32 can tell,
            or a range beyond float32.

    Source: Bernstein et al. 2020, section 4.1. Their 12-bit ladder has the dynamic range 60:

    >>> round(LogFormat(12, base_precision=0.001).range, 1)
    60.0
    """

    bits: int
    base_precision: float = None  # type: ignore[assignment]  # None is resolved below

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int):
            raise TypeError(f"bits must be an int from {MIN_BITS} to {MAX_BITS}, got {self.bits!r}")
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ValueError(f"bits must be from {MIN_BITS} to {MAX_BITS}, got {self.bits}")
        if self.base_precision is None:
            object.__setattr__(self, "base_precision", default_base_precision(self.bits))
        object.__setattr__(self, "base_precision", check_positive("base_precision", self.base_precision))
        if self.base_precision < 2 * _FLOAT32.eps:
            raise ValueError(
                f"base_precision must be at least {2 * _FLOAT32.eps:.2g}, got {self.base_precision}: closer rungs"
                " are the same float32 number"
            )
        nats, limit = self.last_rung * self.base_precision, math.log(_FLOAT32.max)
        if nats > limit:
            raise ValueError(
                f"base_precision={self.base_precision} at bits={self.bits} spans exp({nats:.4g}), beyond float32's"
                f" exp({limit:.4g}); use base_precision <= {limit / self.last_rung:.4g}"
            )

    @property
    def last_rung(self) -> int:
        """The largest k, 2^B - 1."""
        return 2**self.bits - 1

    @property
    def range(self) -> float:
        """Dynamic range: the top rung over the last, exp((2^B - 1) * base_precision)."""
        return math.exp(self.last_rung * self.base_precision)

    @property
    def by_octaves(self) -> bool:
        """Whether 2^(bits - 3) rungs are exactly an octave, for which kernels have faster code."""
        return self.base_precision == eight_octaves(self.bits)

    def check_scale(self, scale: float) -> float:
        """Return the float32 value of `scale` if every rung below it is a normal float32, else raise ValueError."""
        scale = check_positive("scale", scale)
        lowest = _FLOAT32.tiny * self.range
        if not lowest <= scale <= _FLOAT32.max:
            raise ValueError(
                f"scale must lie between {lowest:.4g} and {_FLOAT32.max:.4g}, so that all of the ladder's"
                f" {self.last_rung + 1} rungs (range {self.range:.4g}) are normal float32 numbers; got {scale!r}."
                " Rescale the tensor or use a smaller base_precision"
            )
        return float(torch.tensor(scale, dtype=torch.float32))

    def encode(self, magnitude: Tensor, scale: Tensor, random16: Tensor | None = None) -> Tensor:
        """Round magnitudes to rungs, in log space.

        With r = magnitude / scale the position is p = -ln(r) / base_precision, and the rung is floor(p + u), kept on the
        ladder. It is found without a logarithm: it is the number of rungs after the first that are at least
        ``r * exp(-u * base_precision)``. Float64 division, multiplication and comparison give the same result everywhere, so
        every back end takes the same rung.

        Args:
            magnitude: |x|, any shape, any floating dtype, finite.
            scale: sigma*, broadcast against `magnitude`.
            random16: None rounds to the nearest rung, with u = 1/2; a tie in log space goes to the smaller magnitude. Random
                integers 0 .. 2^16 - 1, one for each magnitude, round stochastically, with u = (random16 + 1/2) / 2^16: the
                expectation of the rung is p. A magnitude closer to a rung than float32 can tell is on that rung, so that
                decoded values encode to their own codes however they are rounded.

        Returns:
            int32 rungs k of the same shape. Zero falls to the last rung, values above `scale` to rung 0.

        >>> ladder = LogFormat(4)  # three rungs to the octave
        >>> ladder.encode(torch.tensor([1.0, 0.5, 0.25]), torch.tensor(1.0)).tolist()
        [0, 3, 6]
        """
        y = magnitude.to(torch.float64) / scale.to(torch.float64)
        if random16 is None:
            y.mul_(self.nearest_factor)
        else:
            factors, bits = self.rounding_factors(random16), random16.reshape(-1)
            product = factors.index_select(0, bits >> 8).mul_(factors.index_select(0, (bits & 0xFF).add_(256)))
            y.mul_(product.clamp_(*self.factor_bounds).view(y.shape))
        flat = y.clamp_(max=1).reshape(-1)
        rungs = self.unit_rungs(torch.float64, flat)  # a negative number follows the last rung: it is below every y
        guess = flat.log().mul_(-1 / self.base_precision).clamp_(0, self.last_rung).to(torch.int32)
        more = (rungs.index_select(0, guess + 1) >= flat).to(torch.int32)
        fewer = (rungs.index_select(0, guess) < flat).to(torch.int32)
        return guess.add_(more).sub_(fewer).view(y.shape)  # the logarithm is one off at most, and only next to a rung

    @property
    def nearest_factor(self) -> float:
        """exp(-base_precision / 2), which turns rounding down into nearest rounding."""
        return math.exp(-self.base_precision / 2)

    @property
    def factor_bounds(self) -> tuple[float, float]:
        """The least and the greatest factor of stochastic rounding, such that a magnitude that float32 cannot tell from a rung
        stays on it."""
        slack = 1.001 * _FLOAT32.eps  # float64 rounds, too
        return math.exp(-self.base_precision) / (1 - slack), 1 - slack

    @cached_table
    def rounding_factors(self, device: torch.device) -> Tensor:
        """Tables of 512 float64 numbers: exp(-u * base_precision) with u = (h + 1/2) / 2^16, for h of 16 bits, is the product of
        one of the first 256, by the upper byte of h, and one of the others, by the lower byte."""
        byte = torch.arange(256, dtype=torch.float64, device=device)
        return (torch.cat([byte * 256, byte + 0.5]) * (-self.base_precision * 2.0**-16)).exp_()

    @cached_table
    def unit_rungs(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """exp(-k * base_precision) for k = 0 .. 2^bits - 1, computed in float64 and rounded to `dtype`; then all negated."""
        k = torch.arange(2**self.bits, dtype=torch.float64, device=device)
        positive = kept_whole((k * -self.base_precision).exp_().to(dtype))
        return torch.cat([positive, -positive])

    def decode(self, exponent: Tensor, negative: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """sign * scale * exp(-k * base_precision), rounded to `dtype`.

        The rungs come from a table of the unit ladder, rounded once to float32 (float64 for float64), times the
        scale: the same two roundings on every back end, so that all of them agree bit for bit.

        Args:
            exponent: integer rungs k, any shape.
            negative: bool, the same shape.
            scale: 0-dim sigma*.
            dtype: floating dtype of the result.
        """
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        table = self.unit_rungs(compute, exponent)
        index = torch.add(exponent.to(torch.int32), negative.to(torch.int32), alpha=self.last_rung + 1)
        values = (table * scale.to(compute)).index_select(0, index.reshape(-1))
        return values.view(exponent.shape).to(dtype)
