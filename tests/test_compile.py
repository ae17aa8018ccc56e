"""torch.compile traces through LogTensors in one graph, and does not trace again when their codes move."""

import pytest
import torch
from oracles.compiler import COMPILED, outcomes
from torch import nn

import lognet
from lognet.optim import Madam


@pytest.mark.parametrize("bits", [4, 8, 10])
def test_one_graph_forward_and_backward_equal_to_eager(bits):
    torch._dynamo.reset()
    model = lognet.wrap(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)), bits=bits)
    compiled, optimizer = torch.compile(model, fullgraph=True, backend="aot_eager"), Madam(model.parameters(), lr=0.1)
    x = torch.randn(5, 6)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            torch.testing.assert_close(*outcomes(model, (compiled, model), x))
            optimizer.step()


@pytest.mark.traces
def test_an_embedding_compiles_into_one_graph():
    torch._dynamo.reset()
    model = lognet.wrap(nn.Sequential(nn.Embedding(7, 4, padding_idx=0), nn.Linear(4, 3)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(*outcomes(model, (model, compiled), torch.tensor([[1, 0, 6]])))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("bits", [3, 8, 10])
def test_a_compiled_embedding_refuses_indices_outside_its_table(backend, bits):
    torch._dynamo.reset()
    model = lognet.wrap(nn.Embedding(7, 1), bits=bits)  # in a table as small as that, no byte is out of bounds
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert torch.equal(compiled(torch.tensor([6, 0])), model(torch.tensor([6, 0])))
    for index in ([0, 7], [-1, 0]):
        with pytest.raises(RuntimeError, match="index out of range: embedding indices must lie in 0 .. 6"):
            compiled(torch.tensor(index))
