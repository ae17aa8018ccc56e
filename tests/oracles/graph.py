"""The bytes that a computation's graph keeps for its backward pass."""

import torch

from lognet import LogTensor


def saved_bytes(loss_of):
    """Bytes of dense floating tensors that the graph of a computation keeps, and its result."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, LogTensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = loss_of()
    return sum(kept.values()), loss
