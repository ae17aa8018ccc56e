"""What every client's test asks of training at 8 bits: the loss falls, and as the same run's in float32 does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 5  # steps over which a curve is averaged: single batches differ by more than the two runs


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Averages over WINDOW consecutive steps."""
    return np.convolve(np.asarray(losses, dtype=float), np.full(WINDOW, 1 / WINDOW), mode="valid")


def gap(losses: Sequence[float], reference: Sequence[float]) -> float:
    """How far apart two runs ever are, their curves smoothed, as a share of what the reference's loss falls by."""
    ours, theirs = smoothed(losses), smoothed(reference)
    return float(np.abs(ours - theirs).max() / (theirs[0] - theirs[-1]))


def assert_tracks(losses: Sequence[float], reference: Sequence[float], falls_by: float, within: float) -> None:
    """The reference's smoothed loss falls by the share `falls_by` of where it starts; the other's stays close to it."""
    theirs = smoothed(reference)
    assert theirs[-1] < (1 - falls_by) * theirs[0], f"float32 does not learn: {theirs[0]:.3f} to {theirs[-1]:.3f}"
    assert len(losses) == len(reference)
    assert (apart := gap(losses, reference)) < within, f"the curves part by {100 * apart:.1f}% of the fall"
