"""Whole models in files, state dicts in plain floats, and files that are replaced as a whole."""

from .atomic import write_atomically
from .checkpoint import load, save
from .float_state import float_state_dicts

__all__ = ["float_state_dicts", "load", "save", "write_atomically"]
