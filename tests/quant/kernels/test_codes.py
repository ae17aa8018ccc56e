"""The kernels as operations of torch: what a graph of torch.compile calls, and that it says the same."""

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

import lognet
from lognet import LogTensor
from lognet.quant import kernels

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
    torch.library.opcheck(torch.ops.lognet.decode.default, arguments(weights(61, bits)))
    torch.library.opcheck(torch.ops.lognet.decode.default, arguments(weights(61, bits), 16, 20))


@pytest.mark.parametrize("backend", ["reference", kernels.backend()])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("start", "count"), [(0, None), (8, None), (16, 20), (24, 0)])
def test_it_reads_any_window_with_and_without_kernels(backend, bits, start, count):
    w = weights(61, bits)
    with kernels.use(backend):
        values = torch.ops.lognet.decode(*arguments(w, start, count))
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


def matrix(bits, shape=(24, 40), dtype=torch.float32):
    return LogTensor.from_float(torch.randn(shape, generator=torch.Generator().manual_seed(bits)).to(dtype), bits)


def product_arguments(x, w):
    s, format = w._storage, w._storage.format
    return x, s.low, s.high, s.sign, s.scale, format.bits, format.base_precision, w.shape[0]


@pytest.mark.parametrize("bits", BITS)
def test_the_product_is_what_torch_asks_of_an_operation(bits):
    torch.library.opcheck(torch.ops.lognet.linear.default, product_arguments(torch.randn(3, 40), matrix(bits)))


@pytest.mark.parametrize("backend", ["reference", kernels.backend()])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_product_with_and_without_kernels_and_with_strides(backend, bits, rows):
    w, x = matrix(bits), torch.randn(40, rows).T
    with kernels.use(backend):
        y = torch.ops.lognet.linear(*product_arguments(x, w))
    torch.testing.assert_close(y, x @ w.dequantize().T)


def made_of(names):
    """How many products from codes, and how many decodings."""
    return names.count("lognet.linear.default"), names.count("lognet.decode.default")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [8, 12])
def test_a_graph_multiplies_few_rows_by_the_codes_as_eager_code_does(bits, dtype, mode):
    model = lognet.wrap(torch.nn.Linear(40, 24, dtype=dtype), bits=bits).requires_grad_(False)
    w = model.weight
    with mode():
        for x, counts in (
            (torch.randn(1, 1, 40), (1, 1)),
            (torch.randn(40), (1, 1)),
            (torch.randn(16, 40), (1, 1)),
            (torch.randn(17, 40), (0, 2)),
        ):
            y, names = operations(model, x.to(dtype))
            assert made_of(names) == counts, x.shape
            torch.testing.assert_close(y, model(x.to(dtype)))
            if counts[0]:
                assert torch.equal(y, model(x.to(dtype)))
        x = torch.randn(40, 3, dtype=dtype)
        for function in (lambda x: w @ x, lambda x: torch.mv(w, x[:, 0]), lambda x: x.T @ w.T):
            y, names = operations(function, x)
            assert made_of(names) == (1, 0)
            assert torch.equal(y, function(x))


def test_a_graph_that_differentiates_decodes():
    for trained in (True, False):
        model, x = lognet.wrap(torch.nn.Linear(40, 24)).requires_grad_(trained), torch.randn(2, 40, requires_grad=True)
        y, names = operations(model, x)
        assert made_of(names) == (0, 2)
        torch.testing.assert_close(y, model(x))


def test_a_graph_for_any_number_of_rows_decodes_and_serves_them_all():
    torch._dynamo.reset()
    model, graphs = lognet.wrap(torch.nn.Linear(40, 24)).requires_grad_(False), []

    def backend(graph, _):
        graphs.append(str(graph.graph))
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=backend))
    for rows in (2, 30, 3, 40):
        x = torch.randn(rows, 40)
        torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs) == 1
    assert "lognet.linear" not in graphs[0]


def test_a_graph_kept_on_disk_is_for_one_back_end_and_one_lognet(monkeypatch):
    w, names = matrix(8), []
    names.append(w._stable_hash_for_caching())
    with kernels.use("reference"):
        names.append(w._stable_hash_for_caching())
    monkeypatch.setattr(lognet.tensor.log_tensor, "_edition", lambda: "another")
    names.append(w._stable_hash_for_caching())
    assert len(set(names)) == 3
    assert matrix(8)._stable_hash_for_caching() == names[2]
