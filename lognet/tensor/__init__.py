"""The LogTensor and how torch sees it: its bits, its operations, and how it travels between processes and files."""

from . import aten as aten  # importing a module registers what torch calls for LogTensors
from . import distributed as distributed
from . import functional as functional
from . import normalization as normalization
from . import pickling as pickling
from .log_tensor import LogTensor

__all__ = ["LogTensor"]
