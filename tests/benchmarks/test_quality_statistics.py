"""The distance between generated and real samples, and verdicts on differences between contenders."""

import math

import pytest
import torch

from benchmarks.quality.gan import frechet_distance, moments
from benchmarks.quality.statistics import Sample, difference
from benchmarks.quality.tasks import ACCURACY, BITS_PER_CHARACTER


def test_frechet_distance_of_diagonal_covariances():
    a, b = torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64), torch.tensor([9.0, 4.0, 2.0], dtype=torch.float64)
    mean = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    expected = 25 + float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance((mean, a.diag()), (torch.zeros_like(mean), b.diag())) == pytest.approx(expected)


def test_frechet_distance_of_covariances_that_do_not_commute():
    """In two dimensions the trace of the root of a product is sqrt(tr(AB) + 2 sqrt(det(AB)))."""
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, -0.4], [-0.4, 3.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    root = math.sqrt((a @ b).trace() + 2 * math.sqrt(torch.det(a) * torch.det(b)))
    assert frechet_distance((zero, a), (zero, b)) == pytest.approx(float((a + b).trace()) - 2 * root)
    assert frechet_distance((zero, a), (zero, b)) == pytest.approx(frechet_distance((zero, b), (zero, a)))
    assert frechet_distance((zero, a), (zero, a)) == pytest.approx(0, abs=1e-12)


def test_moments():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])
    mean, covariance = moments(points)
    assert mean.tolist() == [1, 2]
    assert covariance.tolist() == [[4 / 3, 0], [0, 16 / 3]]


def test_differences_and_verdicts():
    few, many = Sample((1.0, 2.0, 3.0)), Sample((2.0, 3.0, 7.0))
    d = difference(few, many)
    assert (d.value, d.noise) == (-2, pytest.approx(2 * math.sqrt(1 / 3 + 7 / 3)))
    assert d.verdict(ACCURACY) == "within noise"
    clear = difference(Sample((1.0, 1.0)), Sample((2.0, 2.0)))
    assert (clear.verdict(ACCURACY), clear.verdict(BITS_PER_CHARACTER)) == ("worse", "better")
    assert difference(Sample((1.0,)), many).verdict(ACCURACY) == "one seed"
    assert difference(Sample((1.0,), diverged=1), many) is None
    assert difference(Sample(()), many) is None
