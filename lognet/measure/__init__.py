"""What a model costs: bytes held, ladders layer by layer, and multiply-adds."""

from .flops import Flops, flops
from .memory import held_bytes
from .summary import summary

__all__ = ["Flops", "flops", "held_bytes", "summary"]
