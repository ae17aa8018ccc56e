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
        """Where the step takes a weight, were there no bounds and no rungs."""
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


def rung_around(x: float, u: float, scale: float, base_precision: float, bits: int) -> tuple[int, bool]:
    """(k, negative) of the rung to which u in (0, 1] sends x: the upper one of two with the probability that makes x the mean."""
    values = [scale * math.exp(-k * base_precision) for k in range(2**bits)]
    size, negative = abs(x), x < 0
    if size >= values[0]:
        return 0, negative
    if size < values[-1]:
        stays = (size + values[-1]) / (2 * values[-1])
        return len(values) - 1, negative if u <= stays else not negative
    k = max(k for k in range(len(values) - 1) if size <= values[k])
    up = (size - values[k + 1]) / (values[k] - values[k + 1])
    return (k if u <= up else k + 1), negative
