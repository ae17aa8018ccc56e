"""Structured layers, with float or few-bit weights: over algebras other than the reals, and of Kronecker products."""

from .algebra.algebras import Algebra
from .algebra.attention import AlgebraMultiheadAttention
from .algebra.conv import (
    AlgebraConv1d,
    AlgebraConv2d,
    AlgebraConv3d,
    AlgebraConvTranspose1d,
    AlgebraConvTranspose2d,
    AlgebraConvTranspose3d,
)
from .algebra.convolve import algebra_conv, algebra_conv_transpose
from .algebra.embedding import AlgebraEmbedding
from .algebra.forms import from_columns, to_columns
from .algebra.linear import AlgebraLinear, algebra_linear
from .algebra.norm import AlgebraBatchNorm1d, AlgebraBatchNorm2d, AlgebraBatchNorm3d, AlgebraWhitening
from .algebra.recurrent import AlgebraGRU, AlgebraGRUCell, AlgebraLSTM, AlgebraLSTMCell
from .algebra.tuples import TupleActivation, TupleDropout, TupleLift, TupleNorm, determinant
from .kronecker.attention import KroneckerMultiheadAttention, PHMMultiheadAttention
from .kronecker.cost import CostModel, calibrate, cost_model, set_cost_model
from .kronecker.factored import FactoredEmbedding, FactoredLinear, TiedOutput
from .kronecker.phm import PHMConv1d, PHMConv2d, PHMLinear, hamilton_rule
from .kronecker.recurrent import PHMGRU, PHMLSTM, KroneckerGRU, KroneckerLSTM
from .kronecker.shapeshifter import KroneckerEmbedding, KroneckerLinear, LowRankEmbedding, LowRankLinear
from .kronecker.sizes import factor_shapes
from .kronecker.sums import kronecker_linear, kronecker_rows, kronecker_sum, nearest_kronecker_sum
from .kronecker.word2ket import Word2KetEmbedding, Word2KetXSEmbedding

__all__ = [
    "PHMGRU",
    "PHMLSTM",
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
    "CostModel",
    "FactoredEmbedding",
    "FactoredLinear",
    "KroneckerEmbedding",
    "KroneckerGRU",
    "KroneckerLSTM",
    "KroneckerLinear",
    "KroneckerMultiheadAttention",
    "LowRankEmbedding",
    "LowRankLinear",
    "PHMConv1d",
    "PHMConv2d",
    "PHMLinear",
    "PHMMultiheadAttention",
    "TiedOutput",
    "TupleActivation",
    "TupleDropout",
    "TupleLift",
    "TupleNorm",
    "Word2KetEmbedding",
    "Word2KetXSEmbedding",
    "algebra_conv",
    "algebra_conv_transpose",
    "algebra_linear",
    "calibrate",
    "cost_model",
    "determinant",
    "factor_shapes",
    "from_columns",
    "hamilton_rule",
    "kronecker_linear",
    "kronecker_rows",
    "kronecker_sum",
    "nearest_kronecker_sum",
    "set_cost_model",
    "to_columns",
]
