"""The structures that Python and C++ share have the same sizes, and a difference is an error."""

import ctypes

import pytest
from oracles.kernels import BACKENDS

from lognet.optim.engines.structures import SHARED, check_sizes, step_library
from lognet.quant import kernels

SIZES = [ctypes.sizeof(structure) for structure in SHARED]


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_are_those_of_the_library(backend):
    step_library.cache_clear()
    with kernels.use(backend):
        assert step_library() is not None


@pytest.mark.parametrize("i", range(len(SHARED)))
def test_another_size_is_an_error_that_names_the_structure(i):
    check_sizes(SIZES)
    sizes = [*SIZES[:i], SIZES[i] + 8, *SIZES[i + 1 :]]
    words = f"structure {SHARED[i].__name__} has {sizes[i]} bytes in lognet's native library and {SIZES[i]} in"
    with pytest.raises(RuntimeError, match=words):
        check_sizes(sizes)
