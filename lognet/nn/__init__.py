"""Structured layers, with float or few-bit weights: over algebras other than the reals, and of Kronecker products."""

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
)
from .convolve import algebra_conv, algebra_conv_transpose
from .cost import CostModel, calibrate, cost_model, set_cost_model
from .embedding import AlgebraEmbedding
from .factored import FactoredEmbedding, FactoredLinear, TiedOutput
from .flops import Flops, flops
from .forms import from_columns, to_columns
from .kronecker import kronecker_linear, kronecker_rows, kronecker_sum, nearest_kronecker_sum
from .linear import AlgebraLinear, algebra_linear
from .norm import AlgebraBatchNorm1d, AlgebraBatchNorm2d, AlgebraBatchNorm3d, AlgebraWhitening
from .phm import PHMConv1d, PHMConv2d, PHMLinear, hamilton_rule
from .phm_recurrent import PHMGRU, PHMLSTM, KroneckerGRU, KroneckerLSTM
from .phm_transformer import (
    KroneckerMultiheadAttention,
    PHMMultiheadAttention,
    PHMTransformer,
    PHMTransformerDecoder,
    PHMTransformerDecoderLayer,
    PHMTransformerEncoder,
    PHMTransformerEncoderLayer,
)
from .recurrent import AlgebraGRU, AlgebraGRUCell, AlgebraLSTM, AlgebraLSTMCell
from .shapeshifter import KroneckerEmbedding, KroneckerLinear, LowRankEmbedding, LowRankLinear
from .sizes import factor_shapes
from .tuples import TupleActivation, TupleDropout, TupleLift, TupleNorm, determinant
from .word2ket import Word2KetEmbedding, Word2KetXSEmbedding

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
    "Algebraized",
    "CostModel",
    "FactoredEmbedding",
    "FactoredLinear",
    "Flops",
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
    "PHMTransformer",
    "PHMTransformerDecoder",
    "PHMTransformerDecoderLayer",
    "PHMTransformerEncoder",
    "PHMTransformerEncoderLayer",
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
    "algebraize",
    "calibrate",
    "cost_model",
    "determinant",
    "factor_shapes",
    "flops",
    "from_columns",
    "hamilton_rule",
    "kronecker_linear",
    "kronecker_rows",
    "kronecker_sum",
    "nearest_kronecker_sum",
    "prune",
    "set_cost_model",
    "to_columns",
]
