"""Detects which part of torch called an operation. No other file of the library reads the call stack.

The engines for many processes use four operations in a sense of their own, with the same arguments as any other caller:

| engine | operation | from the engine | from anybody else |
|---|---|---|---|
| `FULLY_SHARD` | ``Tensor.new_zeros`` | memory for a shard: a LogTensor | zeros, which a ladder does not have: dense |
| `DTENSOR` | ``F.pad`` | rows that it cuts off after a gather: a LogTensor | zeros: dense |
| `CHECKPOINT` | ``Tensor.new_empty`` | a copy that gets x's attributes: a LogTensor | dense |
| `DDP` | ``aten.copy_`` | weights of another process, which must not be rounded: checked | rounded |

torch passes nothing that tells these apart, so the module that calls has to. If torch renames one of these modules,
`called_by` is False there, and the engine gets dense tensors or unchecked writes; tests/tensor/test_callers.py reads
torch's source for each engine and fails.
"""

from __future__ import annotations

import sys

from ..quant.tracing import tracing

FULLY_SHARD = "torch.distributed.fsdp"
DTENSOR = "torch.distributed.tensor"
CHECKPOINT = "torch.distributed.checkpoint"
DDP = "torch.distributed.utils"

_BETWEEN = ("lognet.", "torch.overrides", "torch.nn.functional", "torch.utils", "torch._tensor", "torch._ops")
"""Modules whose frames may stand between an engine and the handler that it reaches."""


def called_by(engine: str) -> bool:
    """Whether the operation being handled was called from the module `engine`, or from one below it.

    False in a graph of torch.compile or torch.export: the engines do these things outside of graphs.
    """
    if tracing():
        return False
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).startswith(engine)
