"""Number formats: the log ladder, its bits in memory, random bits that can be replayed, and quantizers of activations."""

if "." not in __name__:  # found as a top-level package, from the root of the checkout: a second copy of every class
    raise ImportError("import this package as lognet.quant")

from .by_name import as_quantizer
from .log_format import LogFormat, default_base_precision
from .qtorch_formats import BlockQuantizer, FixedQuantizer, FloatQuantizer
from .quantizers import LogQuantizer, Quantizer

__all__ = [
    "BlockQuantizer",
    "FixedQuantizer",
    "FloatQuantizer",
    "LogFormat",
    "LogQuantizer",
    "Quantizer",
    "as_quantizer",
    "default_base_precision",
]
