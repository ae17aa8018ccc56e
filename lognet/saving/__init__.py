"""Whole models in files, and state dicts in plain floats."""

from .checkpoint import load, save
from .float_state import float_state_dicts

__all__ = ["float_state_dicts", "load", "save"]
