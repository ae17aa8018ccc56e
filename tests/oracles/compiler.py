"""The compilers that a test of torch.compile runs, and what it compares."""

import pytest

# Inductor takes a minute or more for each test. It also warns of torch's own deprecations when imported.
SLOWLY = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
COMPILED = ["aot_eager", pytest.param("inductor", marks=SLOWLY)]


def outcomes(model, forwards, *inputs):
    """The output and the gradients of all parameters, for each of these ways to call the model."""
    results = []
    for forward in forwards:
        model.zero_grad()
        out = forward(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad for p in model.parameters())])
    return results
