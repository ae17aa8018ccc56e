"""Madam as the paper prints it, one weight at a time, in Python floats (float64).

It is written from Bernstein et al. 2020 (Algorithm 1 and section 4.1) and uses nothing of lognet.
"""

from __future__ import annotations

import math


def clamp(x: float, bound: float) -> float:
    return min(max(x, -bound), bound)


def sign(x: float) -> int:
    return (x > 0) - (x < 0)


class Oracle:
    """The state of one weight: its running second moment and the step count."""

    def __init__(self, lr: float, g_bound: float, beta: float, bias_correction: bool) -> None:
        self.lr, self.g_bound, self.beta, self.bias_correction = lr, g_bound, beta, bias_correction
        self.second_moment, self.t = 0.0, 0

    def direction(self, g: float) -> float:
        self.t += 1
        self.second_moment = (1 - self.beta) * g * g + self.beta * self.second_moment
        second = self.second_moment / (1 - self.beta**self.t) if self.bias_correction else self.second_moment
        return 0.0 if g == 0 else clamp(g / math.sqrt(second), self.g_bound)

    def step_float(self, w: float, g: float, sigma_star: float) -> float:
        """Algorithm 1: multiplicative update, then the clamp."""
        r = self.direction(g)
        if r == 0:
            return w
        return clamp(w * math.exp(-self.lr * sign(w) * r), sigma_star)

    def step_code(self, k: int, sign: int, g: float, base_precision: float, bits: int) -> int:
        """Section 4.1: the move is rounded to whole rungs, the rung is clamped to the ladder, the sign stays."""
        move = round(self.direction(g) * self.lr / base_precision)
        return min(max(k + move * sign, 0), 2**bits - 1)
