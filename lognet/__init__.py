"""lognet: train PyTorch networks whose weights are a few bits each, on a ladder in log space.

>>> import torch, lognet
>>> from lognet.optim import Madam
>>> model = lognet.wrap(torch.nn.Linear(4, 2), bits=8)
>>> optimizer = Madam(model.parameters())
"""

from . import convert as convert
from . import measure as measure
from . import models as models
from . import nn as nn
from . import optim as optim
from . import quant as quant
from . import saving as saving
from . import tensor as tensor
from .convert import (
    PHM,
    Kronecker,
    LowRank,
    Word2KetXS,
    algebraize,
    compress,
    requantize,
    set_quantizers,
    unwrap,
    wrap,
)
from .measure import flops, held_bytes, summary
from .quant import LogFormat
from .saving import float_state_dicts, load, save
from .tensor import LogTensor

__version__ = "0.1.0"
__all__ = [
    "PHM",
    "Kronecker",
    "LogFormat",
    "LogTensor",
    "LowRank",
    "Word2KetXS",
    "algebraize",
    "compress",
    "float_state_dicts",
    "flops",
    "held_bytes",
    "load",
    "requantize",
    "save",
    "set_quantizers",
    "summary",
    "unwrap",
    "wrap",
]
