"""lognet: train PyTorch networks whose weights are a few bits each, on a ladder in log space."""

from . import autograd as autograd  # registers the operations that consume LogTensors
from .log_tensor import LogTensor
from .quant import LogFormat

__all__ = ["LogFormat", "LogTensor"]
