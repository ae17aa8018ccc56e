"""lognet: train PyTorch networks whose weights are a few bits each, on a ladder in log space.

>>> import torch, lognet
>>> from lognet.optim import Madam
>>> model = lognet.wrap(torch.nn.Linear(4, 2), bits=8)
>>> optimizer = Madam(model.parameters())
"""

from . import autograd as autograd  # registers the operations that consume LogTensors
from . import dispatch as dispatch
from . import memory as memory
from . import models as models
from . import nn as nn
from . import normalization as normalization
from . import optim as optim
from . import pickling as pickling
from . import quant as quant
from . import sharding as sharding
from .checkpoint import load, save
from .compress import compress
from .factorizations import PHM, Kronecker, LowRank, Word2KetXS
from .float_state import float_state_dicts
from .layer_quantizers import set_quantizers
from .log_tensor import LogTensor
from .memory import held_bytes
from .quant import LogFormat
from .summary import summary
from .wrap import requantize, unwrap, wrap

__version__ = "0.1.0"
__all__ = [
    "PHM",
    "Kronecker",
    "LogFormat",
    "LogTensor",
    "LowRank",
    "Word2KetXS",
    "compress",
    "float_state_dicts",
    "held_bytes",
    "load",
    "requantize",
    "save",
    "set_quantizers",
    "summary",
    "unwrap",
    "wrap",
]
