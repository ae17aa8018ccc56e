"""Layers that treat a tuple as a whole: dropout, nonlinearities, norms, and real inputs turned into tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_probability
from ..parameters import check_bits, quantize_parameters_
from .algebras import Algebra, tuples_in
from .forms import columns_of


def split_tuples(x: Tensor, algebra: Algebra, dim: int) -> tuple[Tensor, int]:
    """x with dimension `dim` split into (tuples, A), and the index of A."""
    dim %= x.dim()
    tuples = tuples_in(x.shape[dim], algebra, f"input.shape[{dim}]")
    return x.reshape(*x.shape[:dim], tuples, algebra.size, *x.shape[dim + 1 :]), dim + 1


def determinant(t: Tensor, algebra: str | Algebra) -> Tensor:
    """The determinant of the real matrix by which tuples act: of the n x n matrix itself for M_n(R).

    Args:
        t: (*, A).
        algebra: name or Algebra. M_2(C) acts by the real 4 x 4 matrix, whose determinant is |det|^2.

    Returns:
        (*).

    >>> determinant(torch.tensor([1.0, 2.0, 3.0, 4.0]), "M2R").item()
    -2.0
    """
    matrix = acting_matrix(t, Algebra.of(algebra))
    if matrix.shape[-1] == 2:  # differentiable at singular matrices too
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    return torch.linalg.det(matrix)


def acting_matrix(t: Tensor, algebra: Algebra) -> Tensor:
    """The real matrices by which tuples (*, A) multiply one column: (*, n, n) for M_n(R)."""
    whole = torch.einsum("...l,olr->...or", t, algebra.structure(t.dtype, t.device))
    columns = columns_of(algebra)
    if not columns.shared:
        return whole
    first = [i for i in range(algebra.size) if columns.position(i)[0] == 0]
    return whole[..., first, :][..., first]


class TupleDropout(nn.Module):
    """Dropout of whole tuples: all components of a tuple are zeroed together, the rest scaled by 1 / (1 - p).

    Args:
        p: probability of zeroing a tuple.
        algebra: name or `Algebra`.
        dim: the feature or channel dimension: -1, or 1 for images.

    Shape: any, with a multiple of A along `dim`; unchanged. Component-wise dropout, which the paper's transformer
    uses, is `torch.nn.Dropout`.

    Raises:
        ValueError: p outside [0, 1], or a width that is not a multiple of A.

    Source: AlgebraNets, section 4.3 ("component-wise, not tuple-wise"; this layer is tuple-wise).

    >>> dropped = TupleDropout(0.5, algebra="H")(torch.ones(100, 8)).view(100, 2, 4)
    >>> bool((dropped == dropped[..., :1]).all())
    True
    """

    def __init__(self, p: float = 0.5, *, algebra: str | Algebra, dim: int = -1) -> None:
        super().__init__()
        self.p, self.algebra, self.dim = check_probability("p", p), Algebra.of(algebra), dim

    def forward(self, input: Tensor) -> Tensor:
        split, component = split_tuples(input, self.algebra, self.dim)
        if not self.training or self.p == 0:
            return input
        scale = F.dropout(torch.ones_like(split.select(component, 0)), self.p, training=True).unsqueeze(component)
        return (split * scale).reshape(input.shape)

    def extra_repr(self) -> str:
        return f"p={self.p}, algebra={self.algebra}, dim={self.dim}"


def _heaviside(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


_F: dict[str, Callable[[Tensor], Tensor]] = {"heaviside": _heaviside, "sigmoid": torch.sigmoid, "relu": torch.relu}
_G = ("mean", "norm", "det")


class TupleActivation(nn.Module):
    """A nonlinearity of whole tuples: t <- f(g(t)) t, where g maps a tuple to a real number.

    A tuple with f = 0 becomes zero, so its products can be skipped.

    Args:
        f: "heaviside" (the paper's H: 1 above zero), "sigmoid", "relu", or a function of tensors.
        g: "mean" of the components, "norm" (L2), "det" (`determinant`), or a function of tensors (*, A) to (*).
        algebra: name or `Algebra`.
        dim: the feature or channel dimension: -1, or 1 for images.

    Shape: any, with a multiple of A along `dim`; unchanged.

    Raises:
        ValueError: an unknown f or g, or a width that is not a multiple of A.

    Source: AlgebraNets, appendix B.1, equation 1.

    >>> TupleActivation(algebra="C")(torch.tensor([3.0, -1.0, 1.0, -3.0]))
    tensor([ 3., -1.,  0., -0.])
    """

    def __init__(
        self,
        f: str | Callable[[Tensor], Tensor] = "heaviside",
        g: str | Callable[[Tensor], Tensor] = "mean",
        *,
        algebra: str | Algebra,
        dim: int = -1,
    ) -> None:
        super().__init__()
        if isinstance(f, str) and f not in _F:
            raise ValueError(f"f must be a function or one of {', '.join(map(repr, _F))}, got {f!r}")
        if isinstance(g, str) and g not in _G:
            raise ValueError(f"g must be a function or one of {', '.join(map(repr, _G))}, got {g!r}")
        self.f, self.g, self.algebra, self.dim = f, g, Algebra.of(algebra), dim

    def forward(self, input: Tensor) -> Tensor:
        split, component = split_tuples(input, self.algebra, self.dim)
        t = split.movedim(component, -1)
        if callable(self.g):
            g = self.g(t)
        elif self.g == "det":
            g = determinant(t, self.algebra)
        else:
            g = t.mean(-1) if self.g == "mean" else torch.linalg.vector_norm(t, dim=-1)
        f = self.f if callable(self.f) else _F[self.f]
        return (f(g).unsqueeze(component) * split).reshape(input.shape)

    def extra_repr(self) -> str:
        return f"f={self.f!r}, g={self.g!r}, algebra={self.algebra}, dim={self.dim}"


class TupleNorm(nn.Module):
    """The L2 norm of each tuple. It turns tuples into real logits at the end of a network.

    Args:
        algebra: name or `Algebra`.
        dim: the feature or channel dimension: -1, or 1 for images.

    Shape: any, with tuples * A along `dim`, to the same with tuples there. The gradient at a zero tuple is zero.

    Raises:
        ValueError: a width that is not a multiple of A.

    Source: AlgebraNets, section 2.3: an algebra linear layer, then sqrt(sum_i t_i^2).

    >>> TupleNorm(algebra="C")(torch.tensor([3.0, 4.0, 0.0, 1.0]))
    tensor([5., 1.])
    """

    def __init__(self, *, algebra: str | Algebra, dim: int = -1) -> None:
        super().__init__()
        self.algebra, self.dim = Algebra.of(algebra), dim

    def forward(self, input: Tensor) -> Tensor:
        split, component = split_tuples(input, self.algebra, self.dim)
        return torch.linalg.vector_norm(split, dim=component)

    def extra_repr(self) -> str:
        return f"algebra={self.algebra}, dim={self.dim}"


class TupleLift(nn.Module):
    """Turns real inputs into tuples: the first component is the input, and a small MLP of the input gives the others.

    Args:
        in_features: real features (or channels) of the input.
        layers: 1 or 2 layers of the MLP.
        hidden: width between the two layers. Default: in_features * (A - 1).
        algebra: name or `Algebra`.
        bits: None for float parameters, or B for LogTensors.
        dim: the feature or channel dimension: -1, or 1 for images, where the MLP acts at each pixel.
        device, dtype: as in torch.nn.

    Shape: in_features along `dim` to in_features * A (tuple * A + component).

    Raises:
        ValueError: `layers` is not 1 or 2, or an input of another width.

    Source: AlgebraNets, section 2.3: t_a the input, t_(b, c, ...) = MLP(t_a), "a small one or two-layer MLP".

    >>> lifted = TupleLift(3, algebra="H", dim=1)(torch.ones(2, 3, 5, 5))
    >>> lifted.shape, bool((lifted[:, ::4] == 1).all())
    (torch.Size([2, 12, 5, 5]), True)
    """

    def __init__(
        self,
        in_features: int,
        layers: int = 1,
        hidden: int | None = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
        dim: int = -1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if layers not in (1, 2):
            raise ValueError(f"layers must be 1 or 2, got {layers}")
        if in_features < 1:
            raise ValueError(f"in_features must be positive, got {in_features}")
        self.algebra, self.bits, self.dim, self.in_features = Algebra.of(algebra), check_bits(bits), dim, in_features
        others = in_features * (self.algebra.size - 1)
        like = {"device": device, "dtype": dtype}
        self.mlp = nn.Sequential()
        if others and layers == 1:
            self.mlp = nn.Sequential(nn.Linear(in_features, others, **like))
        elif others:
            hidden = others if hidden is None else hidden
            self.mlp = nn.Sequential(
                nn.Linear(in_features, hidden, **like), nn.ReLU(), nn.Linear(hidden, others, **like)
            )
        quantize_parameters_(self, bits)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[self.dim] != self.in_features:
            raise ValueError(
                f"input must have in_features={self.in_features} along dim={self.dim}, got {tuple(input.shape)}"
            )
        if self.algebra.size == 1:
            return input
        x = input.movedim(self.dim, -1)
        others = self.mlp(x).unflatten(-1, (self.in_features, self.algebra.size - 1))
        lifted = torch.cat([x.unsqueeze(-1).to(others.dtype), others], -1).flatten(-2)
        return lifted.movedim(-1, self.dim)

    def extra_repr(self) -> str:
        text = f"{self.in_features}, algebra={self.algebra}, dim={self.dim}"
        return text + ("" if self.bits is None else f", bits={self.bits}")
