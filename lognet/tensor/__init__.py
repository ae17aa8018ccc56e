"""The LogTensor and how torch sees it: its bits, its operations, and how it travels between processes and files."""

from . import aten as aten  # importing a module registers its handlers
from . import convolution as convolution
from . import distributed as distributed
from . import embedding as embedding
from . import functional as functional
from . import python_side as python_side
from .log_tensor import LogTensor

__all__ = ["LogTensor"]
