"""The compilers that a test of torch.compile runs."""

import pytest

# Inductor takes a minute or more for each test. It also warns of torch's own deprecations when imported.
SLOWLY = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
COMPILED = ["aot_eager", pytest.param("inductor", marks=SLOWLY)]
