"""Optimizers that work in log space."""

from . import theory as theory
from .madam import Madam

__all__ = ["Madam", "theory"]
