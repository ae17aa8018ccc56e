"""The compilers that a test of torch.compile runs."""

import pytest

# Inductor takes a minute for each, on a busy machine more; and it warns of torch's own deprecations when imported.
SLOWLY = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
COMPILED = ["aot_eager", pytest.param("inductor", marks=SLOWLY)]
