"""Normalisation over algebras: batch norm of each component, and true whitening of each tuple."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...tensor.floats import dense
from ..parameters import check_bits, quantize_parameters_, write_
from .algebras import Algebra, tuples_in


class _AlgebraBatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch norm of tuples: each component has its own statistics, scale and shift."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
    ) -> None:
        algebra = Algebra.of(algebra)
        tuples_in(num_features, algebra, "num_features")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.algebra, self.bits = algebra, check_bits(bits)
        quantize_parameters_(self, bits)

    def _check_input_dim(self, input: Tensor) -> None:
        super()._check_input_dim(input)
        if input.shape[1] != self.num_features:
            tuples = f"{self.num_features // self.algebra.size} tuples of {self.algebra.size}"
            raise ValueError(
                f"input must have num_features={self.num_features} ({tuples}) in dimension 1, got {tuple(input.shape)}"
            )

    def extra_repr(self) -> str:
        return super().extra_repr() + f", algebra={self.algebra}" + ("" if self.bits is None else f", bits={self.bits}")


class AlgebraBatchNorm1d(_AlgebraBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` of tuples: see `AlgebraBatchNorm2d`.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype, algebra, bits: as in
            `AlgebraBatchNorm2d`.

    Shape: (N, num_features) or (N, num_features, L), unchanged.

    Raises:
        ValueError: as `AlgebraBatchNorm2d`.

    >>> AlgebraBatchNorm1d(8, algebra="H")(torch.randn(5, 8)).shape
    torch.Size([5, 8])
    """


class AlgebraBatchNorm2d(_AlgebraBatchNorm, nn.BatchNorm2d):
    """Batch norm of each component by itself, as the paper uses throughout; arguments as `torch.nn.BatchNorm2d`.

    It works in both layouts, because it treats each component by itself. It can be folded into the layer before it.

    Args:
        num_features: real scalars, a multiple of A.
        eps, momentum, affine, track_running_stats, device, dtype: as in torch.nn.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B for LogTensors.

    Shape: (N, num_features, H, W), unchanged.

    Raises:
        ValueError: `num_features` is not a multiple of A, or an input of another width.

    Source: AlgebraNets, section 2.3.

    >>> AlgebraBatchNorm2d(8, algebra="M2R")(torch.randn(5, 8, 3, 3)).shape
    torch.Size([5, 8, 3, 3])
    """


class AlgebraBatchNorm3d(_AlgebraBatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` of tuples: see `AlgebraBatchNorm2d`.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype, algebra, bits: as in
            `AlgebraBatchNorm2d`.

    Shape: (N, num_features, D, H, W), unchanged.

    Raises:
        ValueError: as `AlgebraBatchNorm2d`.

    >>> AlgebraBatchNorm3d(4, algebra="C")(torch.randn(5, 4, 2, 2, 2)).shape
    torch.Size([5, 4, 2, 2, 2])
    """


class AlgebraWhitening(nn.Module):
    r"""Whitening: the components of each tuple get mean zero, variance one and no correlation with each other.

    mu and Sigma are the mean and the A x A covariance of a tuple over batch and space. C is the Cholesky factor of
    Sigma = C C^T. Then

    .. math:: \hat t = C^{-1} (t - \mu), \qquad y = \Gamma \hat t + \beta .

    The covariance of t-hat is the identity. (The paper factors Sigma's inverse instead, which whitens the components in
    the opposite order.) Whitening costs A^2 multiplications for each tuple, also in evaluation. The paper advises batch
    norm.

    Args:
        num_features: real scalars, a multiple of A.
        eps: added to the diagonal of Sigma, in units of the tuple's mean variance. It limits the amplification of small
            eigenvalues.
        momentum: of the running mean and covariance; None for the average over all batches.
        affine: learn `weight`, Gamma (tuples, A, A), the identity at first, and `bias`, beta (num_features,).
        track_running_stats: keep running statistics, and use them in evaluation.
        device, dtype: as in torch.nn.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B for LogTensors.

    Shape: (N, num_features, *), unchanged. Batch statistics are computed in float64, because whitening amplifies
    their rounding by the ratio of the largest to the smallest eigenvalue.

    Raises:
        ValueError: `num_features` is not a multiple of A, an input of another width, or one value a feature in
            training.

    Source: AlgebraNets, section 2.3 ("Cholesky decomposition of the inverted covariance matrix").

    >>> white = AlgebraWhitening(4, algebra="H", affine=False)(torch.randn(500, 4) @ torch.randn(4, 4))
    >>> bool(((white.T @ white / 500 - torch.eye(4)).abs() < 1e-4).all())
    True
    """

    running_mean: Tensor | None
    running_cov: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-8,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
    ) -> None:
        super().__init__()
        self.algebra, self.bits = Algebra.of(algebra), check_bits(bits)
        self.num_features, self.tuples = num_features, tuples_in(num_features, self.algebra, "num_features")
        self.eps, self.momentum, self.affine, self.track_running_stats = eps, momentum, affine, track_running_stats
        like = {"device": device, "dtype": dtype}
        if affine:
            self.weight = nn.Parameter(self._identity(**like))
            self.bias = nn.Parameter(torch.zeros(num_features, **like))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        quantize_parameters_(self, bits)
        keep = track_running_stats
        self.register_buffer("running_mean", torch.zeros(num_features, **like) if keep else None)
        self.register_buffer("running_cov", self._identity(**like) if keep else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device) if keep else None)

    def _identity(self, device: Any = None, dtype: Any = None) -> Tensor:
        return torch.eye(self.algebra.size, device=device, dtype=dtype).repeat(self.tuples, 1, 1)

    def reset_running_stats(self) -> None:
        """Reset the running statistics."""
        if self.running_mean is not None and self.running_cov is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_cov.copy_(self._identity())
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Reset Gamma to the identity, beta to zero, and the running statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            write_(self.weight, self._identity(self.weight.device, self.weight.dtype))
            write_(self.bias, torch.zeros(self.num_features, device=self.bias.device, dtype=self.bias.dtype))

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(
                f"input must be (N, {self.num_features}, *), {self.tuples} tuples of {self.algebra.size} in dimension 1,"
                f" got {tuple(input.shape)}"
            )
        on_batch = self.training or self.running_mean is None or self.running_cov is None
        size, compute = (
            self.algebra.size,
            torch.float64 if on_batch else torch.promote_types(input.dtype, torch.float32),
        )
        t = input.movedim(1, -1).to(compute)
        t = t.reshape(-1, self.tuples, size).permute(1, 2, 0)  # tuple, component, sample
        if self.running_mean is None or self.running_cov is None or self.training:
            count = t.shape[-1]
            if count < 2:
                raise ValueError(
                    f"whitening needs more than one value for each feature, got input {tuple(input.shape)}"
                )
            mean = t.mean(-1, keepdim=True)
            centred = t - mean
            covariance = centred @ centred.mT / count
            self._track(mean, covariance * (count / (count - 1)))
        else:
            mean = self.running_mean.to(compute).view(self.tuples, size, 1)
            centred, covariance = t - mean, self.running_cov.double()
        eye = torch.eye(size, dtype=torch.float64, device=t.device)
        floor = self.eps * covariance.diagonal(dim1=1, dim2=2).mean(-1) + 1e-40  # for a constant tuple
        factor = torch.linalg.cholesky(covariance + floor.detach().view(-1, 1, 1) * eye)
        white = torch.linalg.solve_triangular(factor, eye, upper=False).to(compute) @ centred
        if self.weight is not None:
            white = dense(self.weight).to(compute) @ white + dense(self.bias).to(compute).view(self.tuples, size, 1)
        batch, _, *space = input.shape
        return white.permute(2, 0, 1).reshape(batch, *space, self.num_features).movedim(-1, 1).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, covariance: Tensor) -> None:
        """Update the running statistics. The covariance is unbiased, as in torch's batch norm."""
        if self.training and self.running_mean is not None:
            assert self.running_cov is not None and self.num_batches_tracked is not None  # noqa: PT018
            self.num_batches_tracked += 1
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.reshape(-1).to(self.running_mean.dtype), rate)
            self.running_cov.lerp_(covariance.to(self.running_cov.dtype), rate)

    def extra_repr(self) -> str:
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        text += f", track_running_stats={self.track_running_stats}, algebra={self.algebra}"
        return text + ("" if self.bits is None else f", bits={self.bits}")
