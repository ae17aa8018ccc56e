"""Structured layers: networks over algebras other than the reals, with float or few-bit weights."""

from . import prune as prune
from .algebra import Algebra
from .algebraize import Algebraized, algebraize
from .attention import AlgebraMultiheadAttention
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
from .embedding import AlgebraEmbedding
from .flops import Flops, flops
from .forms import from_columns, to_columns
from .linear import AlgebraLinear, algebra_linear
from .norm import AlgebraBatchNorm1d, AlgebraBatchNorm2d, AlgebraBatchNorm3d, AlgebraWhitening
from .recurrent import AlgebraGRU, AlgebraGRUCell, AlgebraLSTM, AlgebraLSTMCell
from .tuples import TupleActivation, TupleDropout, TupleLift, TupleNorm, determinant

__all__ = [
    "Algebra",
    "AlgebraBatchNorm1d",
    "AlgebraBatchNorm2d",
    "AlgebraBatchNorm3d",
    "AlgebraConv1d",
    "AlgebraConv2d",
    "AlgebraConv3d",
    "AlgebraConvTranspose1d",
    "AlgebraConvTranspose2d",
    "AlgebraConvTranspose3d",
    "AlgebraEmbedding",
    "AlgebraGRU",
    "AlgebraGRUCell",
    "AlgebraLSTM",
    "AlgebraLSTMCell",
    "AlgebraLinear",
    "AlgebraMultiheadAttention",
    "AlgebraWhitening",
    "Algebraized",
    "Flops",
    "TupleActivation",
    "TupleDropout",
    "TupleLift",
    "TupleNorm",
    "algebra_conv",
    "algebra_conv_transpose",
    "algebra_linear",
    "algebraize",
    "determinant",
    "flops",
    "from_columns",
    "prune",
    "to_columns",
]
