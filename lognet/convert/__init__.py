"""One model into another: few-bit weights, few-bit activations and gradients, structured layers, pruned weights."""

from . import prune as prune
from .algebraize import algebraize
from .compress import compress
from .factorizations import PHM, Kronecker, LowRank, Word2KetXS
from .quantizers import set_quantizers
from .report import ConversionReport, ReplacedLayer
from .wrap import requantize, unwrap, wrap

__all__ = [
    "PHM",
    "ConversionReport",
    "Kronecker",
    "LowRank",
    "ReplacedLayer",
    "Word2KetXS",
    "algebraize",
    "compress",
    "prune",
    "requantize",
    "set_quantizers",
    "unwrap",
    "wrap",
]
