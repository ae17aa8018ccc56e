"""The kernels as operations of torch: what a graph of torch.compile calls, and that it says the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

import lognet
from lognet import LogTensor
from lognet.quant import kernels, operators

BITS = [2, 5, 8, 11, 16]
pytestmark = pytest.mark.skipif(kernels.backend() == "reference", reason="no native kernels here")


def weights(count, bits, dtype=torch.float32):
    values = torch.randn(count, generator=torch.Generator().manual_seed(bits)).to(dtype)
    return LogTensor.from_float(values, bits)


def arguments(w, start=0, count=None):
    s, format = w._storage, w._storage.format
    count = s.count - start if count is None else count
    return s.low, s.high, s.sign, s.scale, format.bits, format.base_precision, s.count, start, count


def operations(function, *inputs):
    """The values of a function compiled into one graph, and the names of the operations in it."""
    torch._dynamo.reset()
    names = []

    def backend(graph, _):
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    compiled = torch.compile(function, fullgraph=True, backend=aot_autograd(fw_compiler=backend))
    return compiled(*inputs), names


@pytest.mark.parametrize("bits", BITS)
def test_the_operation_is_what_torch_asks_of_one(bits):
    torch.library.opcheck(operators.decode, arguments(weights(61, bits)))
    torch.library.opcheck(operators.decode, arguments(weights(61, bits), 16, 20))


@pytest.mark.parametrize("backend", ["reference", kernels.backend()])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("start", "count"), [(0, None), (8, None), (16, 20), (24, 0)])
def test_it_reads_any_window_with_and_without_kernels(backend, bits, start, count):
    w = weights(61, bits)
    with kernels.use(backend):
        values = operators.decode(*arguments(w, start, count))
    assert torch.equal(values, w.dequantize()[start : None if count is None else start + count])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bits", BITS)
def test_a_graph_calls_it(bits, dtype):
    w = weights(60, bits, dtype)
    values, names = operations(lambda w: w.dequantize(), w)
    assert torch.equal(values, w.dequantize())
    assert names.count("lognet.decode.default") == 1


def test_what_no_kernel_reads_is_read_in_plain_operations():
    w = weights(60, 8, torch.float64)
    values, names = operations(lambda w: w.dequantize(), w)
    assert torch.equal(values, w.dequantize())
    assert not any("lognet" in name for name in names)
    with kernels.use("reference"):
        _, names = operations(lambda w: w.dequantize(), weights(60, 8))
    assert not any("lognet" in name for name in names)


@pytest.mark.traces
def test_an_exported_program_runs_where_lognet_is_not():
    model = lognet.wrap(torch.nn.Linear(6, 4)).requires_grad_(False)
    graph = torch.export.export(model, (torch.randn(2, 6),)).graph_module.graph
    assert not any("lognet" in str(node.target) for node in graph.nodes)


def test_importing_lognet_does_not_import_the_compiler():
    code = (
        "import sys, torch; had = set(sys.modules); import lognet; assert 'torch._dynamo' not in set(sys.modules) - had"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
