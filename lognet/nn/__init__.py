"""Layers with fewer parameters than their size, on float or LogTensor weights."""

from .cost import CostModel, calibrate, cost_model, set_cost_model
from .factored import FactoredEmbedding, FactoredLinear, TiedOutput
from .kronecker import kronecker_linear, kronecker_rows, kronecker_sum, nearest_kronecker_sum
from .phm import PHMConv1d, PHMConv2d, PHMLinear, hamilton_rule
from .phm_recurrent import PHMGRU, PHMLSTM, KroneckerLSTM
from .phm_transformer import (
    KroneckerMultiheadAttention,
    PHMMultiheadAttention,
    PHMTransformer,
    PHMTransformerDecoder,
    PHMTransformerDecoderLayer,
    PHMTransformerEncoder,
    PHMTransformerEncoderLayer,
)
from .shapeshifter import KroneckerEmbedding, KroneckerLinear, LowRankEmbedding, LowRankLinear
from .sizes import factor_shapes
from .word2ket import Word2KetEmbedding, Word2KetXSEmbedding

__all__ = [
    "PHMGRU",
    "PHMLSTM",
    "CostModel",
    "FactoredEmbedding",
    "FactoredLinear",
    "KroneckerEmbedding",
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
    "Word2KetEmbedding",
    "Word2KetXSEmbedding",
    "calibrate",
    "cost_model",
    "factor_shapes",
    "hamilton_rule",
    "kronecker_linear",
    "kronecker_rows",
    "kronecker_sum",
    "nearest_kronecker_sum",
    "set_cost_model",
]
