"""Number formats: the log ladder, its bits in memory, and random bits that can be replayed."""

if "." not in __name__:  # found as a top-level package, from the root of the checkout: a second copy of every class
    raise ImportError("import this package as lognet.quant")

from .log_format import LogFormat, default_base_precision

__all__ = ["LogFormat", "default_base_precision"]
