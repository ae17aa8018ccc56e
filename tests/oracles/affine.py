"""The affine step of Madam, one weight at a time, in Python floats (float64).

Written from the formulas in the docstring of `lognet.optim.Madam`, for floats and for codes with given random numbers.
"""

from __future__ import annotations

import math


class Oracle:
    """The averages of one weight, and what they make of it."""

    def __init__(
        self, lr: float, g_bound: float, beta: float, momentum: float, affine: float, sigma: float, warmup: int
    ) -> None:
        self.lr, self.g_bound, self.beta, self.momentum, self.affine = lr, g_bound, beta, momentum, affine
        self.sigma, self.warmup, self.average, self.square, self.t = sigma, warmup, 0.0, 0.0, 0

    def target(self, w: float, g: float) -> float:
        """The new weight without bounds and rungs."""
        self.t += 1
        self.average = self.momentum * self.average + (1 - self.momentum) * g
        self.square = self.beta * self.square + (1 - self.beta) * g * g
        average = self.average / (1 - self.momentum**self.t)
        ahead = self.momentum * average + (1 - self.momentum) * g
        square = self.square / (1 - self.beta**self.t)
        r = 0.0 if square == 0 else max(-self.g_bound, min(self.g_bound, ahead / math.sqrt(square)))
        size = (1 - self.affine) * abs(w) + self.affine * self.sigma
        lr = self.lr * min(1.0, self.t / self.warmup)
        return w - lr * min(1.0, 0.2 / self.sigma) * size * r

    def step_float(self, w: float, g: float, sigma_star: float) -> float:
        bound = max(sigma_star, abs(w))
        return max(-bound, min(bound, self.target(w, g)))


def places(x: float, scale: float, base_precision: float) -> float:
    """How many rungs |x| lies below the top of the ladder, as a real number."""
    return math.inf if x == 0 else -math.log(abs(x) / scale) / base_precision


def lift(u: float, base_precision: float) -> float:
    """The number to add to a fractional rung before its fraction is dropped, so that the mean over u is exact in value.

    With t of a rung's way down left to go, q = exp(base_precision) and the rungs 1 and 1/q around exp(-t base_precision),
    the lower one must be taken with probability (1 - exp(-t base_precision)) / (1 - 1/q), which is that of lift(u) >= 1 - t.
    """
    return math.log(1 + u * math.expm1(base_precision)) / base_precision


def crosses(x: float, side: int, half: int, lowest: float) -> bool:
    """Whether a weight of sign `side` whose new value is x changes its sign. Below the lowest rung the probability makes x
    the mean. `half` is a two's complement number of 16 bits."""
    signed = half if half < 2**15 else half - 2**16
    return x * side < signed / 2**15 * lowest
