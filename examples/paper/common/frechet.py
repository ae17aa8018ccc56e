"""The Frechet inception distance (FID; Heusel et al. 2017) between two sets of pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def load_features(path: Path, device: torch.device) -> nn.Module:
    """A TorchScript network called as ``network(pictures, return_features=True)``, uint8 (N, 3, H, W) to features (N, d).

    ``inception-2015-12-05.pt``, which circulates for this purpose, is said to be one; lognet does not ship it. A TorchScript
    file is a program: open only a file that you trust.
    """
    if not path.is_file():
        raise SystemExit(f"error: there is no file {path}")
    return torch.jit.load(str(path), map_location=device).eval()


class Moments:
    """Sums from which the mean and the covariance are computed. The sums of several processes add up."""

    def __init__(self) -> None:
        self.count: float = 0.0
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def add(self, features: Tensor) -> None:
        x = features.double()
        self.count += len(x)
        self.first = x.sum(0) if self.first is None else self.first + x.sum(0)
        self.second = x.T @ x if self.second is None else self.second + x.T @ x

    def normal(self) -> tuple[Tensor, Tensor]:
        """Mean (d) and covariance (d, d)."""
        if self.first is None or self.second is None:
            raise ValueError("there are no features yet: add some first")
        mean = self.first / self.count
        return mean, (self.second - self.count * torch.outer(mean, mean)) / (self.count - 1)


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two normal distributions (mu, C)."""
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)
