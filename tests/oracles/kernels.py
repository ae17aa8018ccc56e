"""The native back ends of this machine and this build, which the tests compare with the reference."""

import os
import shutil

import pytest

from lognet.quant import kernels


def native_backends():
    """Their names. A machine with a compiler has at least the portable one, so its absence is a failure."""
    names = []
    for name in ("portable", "avx2", "avx512"):
        try:
            with kernels.use(name):
                names.append(name)
        except ValueError:
            continue
    return names


NONE_HERE = pytest.mark.skipif(
    not shutil.which("c++") or os.environ.get("LOGNET_KERNELS") == "reference",
    reason="no kernels: there is no C++ compiler, or LOGNET_KERNELS=reference",
)
BACKENDS = native_backends() or [pytest.param("portable", marks=NONE_HERE)]
