"""The operations on codes, each defined once in plain torch (`bitpack`, `codes`), and the back ends that compute them faster.

`dispatch` chooses a back end, and says how to add one.
"""

from . import native as native
from .library import backend, use

__all__ = ["backend", "native", "use"]
