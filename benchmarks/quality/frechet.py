r"""The Fréchet distance between two sets of points, each taken as a normal distribution.

.. math:: \|\mu_1 - \mu_2\|^2 + \mathrm{tr}(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})

Source: Dowson and Landau 1982; Heusel et al. 2017 (on features of a classifier, for generated pictures).
"""

from __future__ import annotations

import torch
from torch import Tensor


def moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of ``[n, d]`` points, in float64."""
    return points.double().mean(0), torch.cov(points.double().T).reshape(points.shape[1], points.shape[1])


def square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """The distance between two normal distributions, given as (mean, covariance)."""
    (mean1, covariance1), (mean2, covariance2) = first, second
    root = square_root(covariance1)
    mixed = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * mixed)
