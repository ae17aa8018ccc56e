"""What is the recurrent layers' over algebras own; tests/nn/test_recurrence.py holds them to torch's answers."""

import copy

import pytest
import torch
from oracles import algebra as oracle
from oracles.graph import saved_bytes

import lognet
from lognet import nn
from lognet.tensor.floats import dense

KINDS = {
    "gru": (nn.AlgebraGRU, torch.nn.GRU, nn.AlgebraGRUCell, torch.nn.GRUCell),
    "lstm": (nn.AlgebraLSTM, torch.nn.LSTM, nn.AlgebraLSTMCell, torch.nn.LSTMCell),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def torch_twin(ours, theirs):
    """torch's module with the dense expansion of our weights, still connected to our parameters."""

    def weights():
        for n, p in ours.named_parameters():
            yield n, oracle.dense(ours.algebra.name, dense(p)) if n.startswith("weight") else dense(p)

    return lambda *inputs: torch.func.functional_call(theirs, dict(weights()), inputs)


def flat(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("bits", [None, 10], ids=["float", "log"])
@pytest.mark.parametrize("name", ["C", "H", "M3R", "D4"])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_equal_the_dense_real_ones(kind, name, bits):
    a = oracle.SIZES[name]
    ours = KINDS[kind][2](2 * a, 3 * a, algebra=name, bits=bits, dtype=torch.float64)
    theirs = torch_twin(ours, KINDS[kind][3](2 * a, 3 * a, dtype=torch.float64))
    x, h, c = torch.randn(4, 2 * a).double(), torch.randn(4, 3 * a).double(), torch.randn(4, 3 * a).double()
    hx = h if kind == "gru" else (h, c)
    for inputs in ((x,), (x, hx), (x[0],)):
        torch.testing.assert_close(flat(ours(*inputs)), flat(theirs(*inputs)), **CLOSE)
    grads = (torch.autograd.grad(flat(cell(x, hx))[0].sum(), list(ours.parameters())) for cell in (ours, theirs))
    torch.testing.assert_close(*grads, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["C", "M2R"])
def test_gradcheck(kind, name):
    a = oracle.SIZES[name]
    ours = KINDS[kind][0](2 * a, 3 * a, algebra=name, dtype=torch.float64)
    for n, p in ours.named_parameters():
        if n.startswith("bias"):  # which starts at zero
            torch.nn.init.uniform_(p, -0.1, 0.1)
    x = torch.randn(3, 2, 2 * a, dtype=torch.float64, requires_grad=True)
    weights = dict(ours.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(ours, dict(zip(weights, values, strict=True)), x)[0]

    assert torch.autograd.gradcheck(call, (x, *weights.values()), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_other_dtypes(kind, dtype):
    ours = KINDS[kind][0](8, 8, algebra="M2R", dtype=dtype)
    x = torch.randn(4, 2, 8)
    expected = torch_twin(ours.float(), KINDS[kind][1](8, 8))(x)[0]
    ours = ours.to(dtype)
    out = ours(x.to(dtype))[0]
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["H", "M2R", "D4"])
def test_the_graph_keeps_codes_and_never_a_decoded_weight(kind, name):
    a = oracle.SIZES[name]
    layer = KINDS[kind][0](96 * a, 96 * a, algebra=name, bits=8)
    kept, total = saved_bytes(lambda: layer(torch.randn(2, 1, 96 * a))[0].sum())
    assert kept < layer.weight_hh_l0.numel() * 4 * 0.75
    total.backward()
    assert type(layer.weight_hh_l0.grad) is torch.Tensor
    copies = [layer, copy.deepcopy(layer), lognet.unwrap(copy.deepcopy(layer))]
    x = torch.randn(2, 1, 96 * a)
    for other in copies[1:]:
        torch.testing.assert_close(layer(x)[0], other(x)[0])
    before = layer.weight_hh_l0.dequantize()
    layer.reset_parameters()
    assert not torch.equal(layer.weight_hh_l0.dequantize(), before)


def test_projections_are_tuples():
    layer = nn.AlgebraLSTM(8, 12, proj_size=8, algebra="H")
    layer.reset_parameters()
    assert layer.weight_hr_l0.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.AlgebraGRU(6, 8, algebra="H"), "input_size=6 must be a positive multiple of 4"),
        (lambda: nn.AlgebraLSTM(8, 6, algebra="H"), "hidden_size=6 must be a positive multiple of 4"),
        (lambda: nn.AlgebraGRUCell(8, 8, algebra="H")(torch.ones(2, 3, 8)), r"input must be \(batch, 8\)"),
        (lambda: nn.AlgebraLSTM(8, 8, algebra="H", proj_size=6), "proj_size=6 must be a positive multiple of 4"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.AlgebraLSTMCell(8, 8, algebra="H")(torch.ones(3, 8), torch.ones(3, 8)), r"the pair \(h, c\)"),
        (
            lambda: nn.AlgebraGRUCell(8, 8, algebra="H")(torch.ones(3, 8), torch.ones(3, 8).double()),
            "hx is torch.float64 but the parameters are torch.float32",
        ),
    ],
)  # fmt: skip
def test_type_errors(make, message):
    with pytest.raises(TypeError, match=message):
        make()
