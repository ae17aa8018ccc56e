"""Every test starts from the same seeds, and leaves torch's global settings as it found them."""

import os
import random
import signal

import hypothesis
import numpy as np
import pytest
import torch

# No deadline: the first example of a property may compile something.
hypothesis.settings.register_profile("lognet", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("lognet")


def pytest_configure(config):
    config.addinivalue_line("markers", "traces: needs a torch.compile that traces more than torch 2.6's does")


def pytest_collection_modifyitems(items):
    if torch.__version__.startswith("2.6."):
        for item in items:
            if item.get_closest_marker("traces"):
                item.add_marker(pytest.mark.skip(reason="torch 2.6 cannot trace what 2.13 can"))


# A shell starts what runs in the background with Ctrl-C ignored, and child processes inherit that: the tests that send it to
# them need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests' tensors are tiny: on a busy machine several threads spend the time waiting for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
