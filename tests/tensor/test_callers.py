"""Which engine of torch called: by modules of these names, and whether torch still has the calls."""

import importlib
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lognet import LogTensor
from lognet.tensor import callers

ENGINES = {  # and the call in torch's source that a handler answers
    "FULLY_SHARD": r"\.new_zeros\(",
    "DTENSOR": r"\.pad\(",
    "CHECKPOINT": r"\.new_empty\(",
    "DDP": r"\b_broadcast_coalesced\(",  # whose C++ copies
}
CALLS = {
    "FULLY_SHARD": lambda w: w.new_zeros(torch.Size((5, 3))),
    "DTENSOR": lambda w: F.pad(w, (0, 0, 0, 2)),
    "CHECKPOINT": lambda w: w.new_empty(4, 3),
}


def renamed(call, module):
    """The same code as a function of another module, because the frame of a lambda of this file is of this file."""
    return type(call)(call.__code__, {**call.__globals__, "__name__": module})


def weight():
    return LogTensor.from_float(torch.tensor([[1.0, -0.5, 0.25]] * 4))


def test_every_engine_is_listed_here():
    named = {name for name, value in vars(callers).items() if name.isupper() and not name.startswith("_")}
    assert named == set(ENGINES)


@pytest.mark.parametrize("engine", ENGINES)
def test_torch_still_calls_from_there(engine):
    if engine == "CHECKPOINT" and torch.__version__ < "2.7":
        pytest.skip("this torch copies into memory that it allocates itself")
    module = importlib.import_module(getattr(callers, engine))
    root = Path(module.__file__)
    files = root.parent.rglob("*.py") if root.name == "__init__.py" else [root]
    calling = [file for file in files if re.search(ENGINES[engine], file.read_text())]
    assert calling, f"nothing in {module.__name__} calls {ENGINES[engine]}: where does torch do it now?"


@pytest.mark.parametrize("between", callers._BETWEEN)
def test_modules_between_are_modules(between):
    importlib.import_module(between.rstrip("."))


@pytest.mark.parametrize("engine", CALLS)
def test_an_engine_gets_log_tensors_and_everybody_else_floats(engine):
    module = getattr(callers, engine)
    for below in (module, f"{module}.some._file"):
        assert type(renamed(CALLS[engine], below)(weight())) is LogTensor
    for other in ("torch.nn.modules.linear", "__main__"):
        assert type(renamed(CALLS[engine], other)(weight())) is torch.Tensor


@pytest.mark.parametrize("values", [0.3, math.pi])
def test_values_that_ddp_sends_are_not_rounded(values):
    write = lambda w, x: w.copy_(x)
    x, w = torch.full((4, 3), values), weight().mul_(1)
    renamed(write, "torch.nn.init")(w.clone(), x.clamp(max=1))
    with pytest.raises(ValueError, match="cannot take over the weights of another rank"):
        renamed(write, callers.DDP)(w, x)
    assert torch.equal(w, weight())
    renamed(write, callers.DDP)(w, weight().dequantize().flip(1))
    assert torch.equal(w, weight().dequantize().flip(1))


def test_nobody_is_told_apart_in_a_graph():
    def call(w):
        return w.new_zeros(4, 3)

    run = torch.compile(renamed(call, callers.FULLY_SHARD), backend="eager", fullgraph=True)
    assert type(run(weight())) is torch.Tensor
