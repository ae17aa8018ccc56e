"""The operations on codes, each defined once in plain torch (`bitpack`, `codes`), and the back ends that compute them
faster.

A back end is a file that registers functions for one type of device and gives the same bits: `native` for the CPU, in
C++. Without one, on other devices and in exported programs the plain functions run. `dispatch` chooses, and says how
to add a back end.
"""

from . import native as native
from .library import backend, use

__all__ = ["backend", "native", "use"]
