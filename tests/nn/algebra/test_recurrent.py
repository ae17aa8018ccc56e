"""GRU and LSTM over algebras against torch's with the dense expansion of the weights."""

import copy

import pytest
import torch
from oracles import algebra as oracle
from oracles.graph import saved_bytes
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lognet
from lognet import LogTensor, nn

KINDS = {
    "gru": (nn.AlgebraGRU, torch.nn.GRU, nn.AlgebraGRUCell, torch.nn.GRUCell),
    "lstm": (nn.AlgebraLSTM, torch.nn.LSTM, nn.AlgebraLSTMCell, torch.nn.LSTMCell),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def copy_dense(ours, theirs):
    """Give torch's module the dense expansion of our weights."""
    name = ours.algebra.name
    with torch.no_grad():
        for (n, p), (m, q) in zip(sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True):
            assert n == m
            p = p.dequantize() if isinstance(p, LogTensor) else p
            q.copy_(oracle.dense(name, p) if n.startswith("weight") else p)


def folded(ours, theirs):
    """(our gradient, torch's folded back by the adjoint of the expansion) of each parameter."""
    for (n, p), (_, q) in zip(sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True):
        if n.startswith("weight"):
            w = p.detach()
            w = (w.dequantize() if isinstance(w, LogTensor) else w).requires_grad_()
            yield n, p.grad, torch.autograd.grad(oracle.dense(ours.algebra.name, w), w, q.grad)[0]
        else:
            yield n, p.grad, q.grad


def layers(kind, name, bits, **options):
    a = oracle.SIZES[name]
    ours = KINDS[kind][0](2 * a, 3 * a, **options, algebra=name, bits=bits, dtype=torch.float64)
    with torch.no_grad():
        for n, p in ours.named_parameters():
            if n.startswith("bias"):
                p.copy_(torch.rand_like(p.dequantize() if bits else p) * 0.2 - 0.1)
    theirs = KINDS[kind][1](2 * a, 3 * a, **options, dtype=torch.float64)
    copy_dense(ours, theirs)
    return ours, theirs, a


def flat(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("bits", [None, 10], ids=["float", "log"])
@pytest.mark.parametrize("name", ["R", "C", "H", "M2R", "M2C", "D3"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["plain", "deep"])
def test_layers_equal_the_dense_real_ones(kind, name, bits, options):
    ours, theirs, a = layers(kind, name, bits, **options)
    ends = 2 * options.get("num_layers", 1) if options else 1
    x = torch.randn(5, 4, 2 * a, dtype=torch.float64)
    hx = tuple(torch.randn(ends, 4, 3 * a, dtype=torch.float64) for _ in range(ours.states))
    results = []
    for module in (ours, theirs):
        inputs = [t.clone().requires_grad_() for t in (x, *hx)]
        out, state = module(inputs[0], tuple(inputs[1:]) if len(hx) > 1 else inputs[1])
        (out.pow(2).sum() + sum((i + 1) * s.sum() for i, s in enumerate(flat(state)))).backward()
        results.append((out, *flat(state), *(t.grad for t in inputs)))
    for mine, real in zip(*results, strict=True):
        torch.testing.assert_close(mine, real, **CLOSE)
    for n, mine, real in folded(ours, theirs):
        torch.testing.assert_close(mine, real, **CLOSE, msg=lambda m, n=n: f"{n}: {m}")


@pytest.mark.parametrize("bits", [None, 10], ids=["float", "log"])
@pytest.mark.parametrize("name", ["R", "C", "H", "M2R", "M2C", "D3"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["plain", "deep"])
def test_projections_equal_the_dense_real_ones(name, bits, options):
    a = oracle.SIZES[name]
    ours, theirs, _ = layers("lstm", name, bits, proj_size=2 * a, **options)
    ends = 4 if options else 1
    x = torch.randn(5, 4, 2 * a, dtype=torch.float64)
    hx = [torch.randn(ends, 4, n * a, dtype=torch.float64) for n in (2, 3)]
    results = []
    for module in (ours, theirs):
        inputs = [t.clone().requires_grad_() for t in (x, *hx)]
        out, (h, c) = module(inputs[0], tuple(inputs[1:]))
        (out.pow(2).sum() + h.sum() + 2 * c.sum()).backward()
        results.append((out, h, c, module(x)[0], *(t.grad for t in inputs)))
    for mine, real in zip(*results, strict=True):
        torch.testing.assert_close(mine, real, **CLOSE)
    for n, mine, real in folded(ours, theirs):
        torch.testing.assert_close(mine, real, **CLOSE, msg=lambda m, n=n: f"{n}: {m}")
    packed = pack_padded_sequence(x, torch.tensor([2, 5, 1, 4]), enforce_sorted=False)
    for mine, real in zip(ours(packed, tuple(hx))[1], theirs(packed, tuple(hx))[1], strict=True):
        torch.testing.assert_close(mine, real, **CLOSE)
    ours.reset_parameters()
    assert ours.weight_hr_l0.shape == (2, 3, a)
    assert f"proj_size={2 * a}" in repr(ours)


@pytest.mark.parametrize("name", ["H", "M2R", "D3"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences(kind, name, enforce_sorted):
    ours, theirs, a = layers(kind, name, None, num_layers=2, bidirectional=True)
    x = torch.randn(5, 4, 2 * a, dtype=torch.float64)
    lengths = torch.tensor([5, 4, 2, 1] if enforce_sorted else [2, 5, 1, 4])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    hx = tuple(torch.randn(4, 4, 3 * a, dtype=torch.float64) for _ in range(ours.states))
    hx = hx if len(hx) > 1 else hx[0]
    (out, state), (expected, last) = ours(packed, hx), theirs(packed, hx)
    torch.testing.assert_close(pad_packed_sequence(out)[0], pad_packed_sequence(expected)[0], **CLOSE)
    for mine, real in zip(flat(state), flat(last), strict=True):
        torch.testing.assert_close(mine, real, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts(kind):
    ours, theirs, a = layers(kind, "M2R", None, batch_first=True, bias=False)
    x = torch.randn(4, 5, 2 * a, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], **CLOSE)
    for given in (None, flat(theirs(x)[1])):  # unbatched
        hx = None if given is None else tuple(s[:, 0] for s in given)
        hx = hx[0] if hx is not None and len(hx) == 1 else hx
        (out, state), (expected, last) = ours(x[0], hx), theirs(x[0], hx)
        torch.testing.assert_close(out, expected, **CLOSE)
        torch.testing.assert_close(flat(state), flat(last), **CLOSE)
    dropped = KINDS[kind][0](8, 8, 2, dropout=0.5, algebra="H")
    assert not torch.equal(dropped(torch.ones(3, 1, 8))[0], dropped(torch.ones(3, 1, 8))[0])
    dropped.eval()
    assert torch.equal(dropped(torch.ones(3, 1, 8))[0], dropped(torch.ones(3, 1, 8))[0])


@pytest.mark.parametrize("bits", [None, 10], ids=["float", "log"])
@pytest.mark.parametrize("name", ["C", "H", "M3R", "D4"])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_equal_the_dense_real_ones(kind, name, bits):
    a = oracle.SIZES[name]
    ours = KINDS[kind][2](2 * a, 3 * a, algebra=name, bits=bits, dtype=torch.float64)
    theirs = KINDS[kind][3](2 * a, 3 * a, dtype=torch.float64)
    copy_dense(ours, theirs)
    x, h, c = torch.randn(4, 2 * a).double(), torch.randn(4, 3 * a).double(), torch.randn(4, 3 * a).double()
    hx = h if kind == "gru" else (h, c)
    for inputs in ((x,), (x, hx), (x[0],)):
        torch.testing.assert_close(flat(ours(*inputs)), flat(theirs(*inputs)), **CLOSE)
    flat(ours(x, hx))[0].sum().backward()
    flat(theirs(x, hx))[0].sum().backward()
    for _, mine, real in folded(ours, theirs):
        torch.testing.assert_close(mine, real, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["C", "M2R"])
def test_gradcheck(kind, name):
    ours, _, a = layers(kind, name, None)
    x = torch.randn(3, 2, 2 * a, dtype=torch.float64, requires_grad=True)
    weights = dict(ours.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(ours, dict(zip(weights, values, strict=True)), x)[0]

    assert torch.autograd.gradcheck(call, (x, *weights.values()), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_other_dtypes(kind, dtype):
    ours = KINDS[kind][0](8, 8, algebra="M2R", dtype=dtype)
    theirs = KINDS[kind][1](8, 8)
    copy_dense(ours.float(), theirs)
    ours = ours.to(dtype)
    x = torch.randn(4, 2, 8)
    out = ours(x.to(dtype))[0]
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out.float(), theirs(x)[0], rtol=tolerance, atol=tolerance)


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
    layer.reset_parameters()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.AlgebraGRU(6, 8, algebra="H"), "input_size=6 must be a positive multiple of 4"),
        (lambda: nn.AlgebraLSTM(8, 6, algebra="H"), "hidden_size=6 must be a positive multiple of 4"),
        (lambda: nn.AlgebraGRU(8, 8, 0, algebra="H"), "num_layers must be at least 1"),
        (lambda: nn.AlgebraGRU(8, 8, 2, dropout=2.0, algebra="H"), "dropout must be a probability"),
        (lambda: nn.AlgebraGRU(8, 8, algebra="H")(torch.ones(2, 3, 4)), "input_size=8 last"),
        (lambda: nn.AlgebraGRU(8, 8, algebra="H")(torch.ones(8)), r"input must be \(time, batch, 8\)"),
        (lambda: nn.AlgebraGRU(8, 8, algebra="H")(torch.ones(0, 3, 8)), "at least one step"),
        (lambda: nn.AlgebraGRU(8, 8, algebra="H")(torch.ones(2, 3, 8), torch.ones(1, 2, 8)), r"hx must have shape \(1, 3, 8\)"),
        (lambda: nn.AlgebraGRUCell(8, 8, algebra="H")(torch.ones(2, 3, 8)), r"input must be \(batch, 8\)"),
        (lambda: nn.AlgebraGRU(8, 8, algebra="H", proj_size=4), "proj_size=4 is for LSTMs only"),
        (lambda: nn.AlgebraLSTM(8, 8, algebra="H", proj_size=6), "proj_size=6 must be a positive multiple of 4"),
        (lambda: nn.AlgebraLSTM(8, 8, algebra="H", proj_size=8), "proj_size=8 must be below hidden_size=8"),
        (
            lambda: nn.AlgebraLSTM(8, 8, algebra="H")(torch.ones(2, 3, 8), (torch.ones(1, 3, 8), torch.ones(1, 3, 4))),
            r"hx\[1\] must have shape \(1, 3, 8\), got \(1, 3, 4\)",
        ),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.AlgebraGRU(8, 8, algebra="H")(torch.ones(2, 3, 8).double()), "input is torch.float64 but the parameters"),
        (lambda: nn.AlgebraLSTMCell(8, 8, algebra="H")(torch.ones(3, 8), torch.ones(3, 8)), r"the pair \(h, c\)"),
        (lambda: nn.AlgebraLSTM(8, 8, algebra="H")(torch.ones(3, 8), torch.ones(1, 8)), r"the pair \(h, c\)"),
        (lambda: nn.AlgebraGRU(8, 8, algebra="H")(torch.ones(2, 3, 8), (torch.ones(1, 3, 8),)), "hx must be a tensor, got tuple"),
        (
            lambda: nn.AlgebraGRUCell(8, 8, algebra="H")(torch.ones(3, 8), torch.ones(3, 8).double()),
            "hx is torch.float64 but the parameters are torch.float32",
        ),
    ],
)  # fmt: skip
def test_type_errors(make, message):
    with pytest.raises(TypeError, match=message):
        make()
