"""Every test starts from the same seeds, and leaves torch's global settings as it found them."""

import os
import random

import hypothesis
import numpy as np
import pytest
import torch

# No deadline: the first example of a property may compile something.
hypothesis.settings.register_profile("lognet", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("lognet")

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
