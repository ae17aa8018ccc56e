"""Layers with fewer parameters than their size, on float or LogTensor weights."""

from .cost import CostModel, calibrate, cost_model, set_cost_model
from .factored import FactoredEmbedding, FactoredLinear, TiedOutput
from .kronecker import kronecker_linear, kronecker_rows, kronecker_sum, nearest_kronecker_sum
from .phm import PHMConv1d, PHMConv2d, PHMLinear, hamilton_rule
from .shapeshifter import KroneckerEmbedding, KroneckerLinear, LowRankEmbedding, LowRankLinear
from .sizes import factor_shapes
from .word2ket import Word2KetEmbedding, Word2KetXSEmbedding

__all__ = [
    "CostModel",
    "FactoredEmbedding",
    "FactoredLinear",
    "KroneckerEmbedding",
    "KroneckerLinear",
    "LowRankEmbedding",
    "LowRankLinear",
    "PHMConv1d",
    "PHMConv2d",
    "PHMLinear",
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
