"""Number formats: the log ladder, its bits in memory, and random bits that can be replayed."""

from .log_format import LogFormat, default_base_precision

__all__ = ["LogFormat", "default_base_precision"]
