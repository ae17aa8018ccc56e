"""Optimizers that work in log space."""

from .madam import Madam

__all__ = ["Madam"]
