"""The native back ends that this machine and this build have, to be held to the reference."""

import os
import shutil

import pytest

from lognet.quant import kernels


def native_backends():
    """Their names. A machine with a compiler has at least the portable one: its absence is a failure, not a skip."""
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
