"""The operations that want speed, on two back ends: plain torch operations, which are the specification, and C++.

The plain form lives where its idea does (`lognet.quant.bitpack`, `lognet.quant.log_format`, `lognet.optim`); it runs on
every device, and on other devices it is what torch.compile sees. On the CPU the same functions hand their tensors to
`native`, which gives the same bits.
"""

from . import native as native
from .library import backend, use

__all__ = ["backend", "native", "use"]
