"""Structured layers: networks over algebras other than the reals, with float or few-bit weights."""

from .algebra import Algebra
from .conv import (
    AlgebraConv1d,
    AlgebraConv2d,
    AlgebraConv3d,
    AlgebraConvTranspose1d,
    AlgebraConvTranspose2d,
    AlgebraConvTranspose3d,
    algebra_conv,
    algebra_conv_transpose,
)
from .forms import from_columns, to_columns
from .linear import AlgebraLinear, algebra_linear

__all__ = [
    "Algebra",
    "AlgebraConv1d",
    "AlgebraConv2d",
    "AlgebraConv3d",
    "AlgebraConvTranspose1d",
    "AlgebraConvTranspose2d",
    "AlgebraConvTranspose3d",
    "AlgebraLinear",
    "algebra_conv",
    "algebra_conv_transpose",
    "algebra_linear",
    "from_columns",
    "to_columns",
]
