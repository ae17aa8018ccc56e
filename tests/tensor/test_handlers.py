"""The tables of handlers: one handler an operation, and which of them an operation finds."""

import pytest
import torch

from lognet import LogTensor
from lognet.tensor import handlers

aten = torch.ops.aten


@pytest.fixture
def tables(monkeypatch):
    """Copies of the tables, so that a test may register."""
    monkeypatch.setattr(handlers, "FUNCTIONS", dict(handlers.FUNCTIONS))
    monkeypatch.setattr(handlers, "OPS", dict(handlers.OPS))
    yield
    handlers.op_handler.cache_clear()


@pytest.mark.parametrize(
    ("register", "keys", "table"),
    [
        (handlers.handles_function, (torch.sin, torch.nn.functional.linear), "FUNCTIONS"),
        (handlers.handles_op, (aten.sin.default, aten.copy_.default), "OPS"),
        (handlers.handles_op, ("c10d",), "OPS"),
    ],
)
def test_a_second_handler_is_refused_and_registers_nothing(tables, register, keys, table):
    before = dict(getattr(handlers, table))
    with pytest.raises(ValueError, match="has a handler already.*extend that one"):
        register(*keys)(lambda *args: None)
    assert getattr(handlers, table) == before


def test_an_operation_finds_its_own_handler_then_its_namespaces_then_the_general_one(tables):
    general = handlers.OPS[handlers.ANY_OTHER]
    assert handlers.op_handler(aten.sin.default) is general
    of_namespace, own = (lambda func, x: x.dequantize() + 1), (lambda func, x: x.dequantize() + 2)
    handlers.handles_op("aten")(of_namespace)
    assert handlers.op_handler(aten.sin.default) is of_namespace  # also where another one was found before
    handlers.handles_op(aten.sin.default)(own)
    w = LogTensor.from_float(torch.zeros(3), scale=1.0).set_mask_(torch.zeros(3, dtype=torch.bool))
    assert (w.sin().tolist(), w.cos().tolist()) == ([2] * 3, [1] * 3)
