"""Recurrent layers against torch's own with the same dense weights, and against the paper's equations and counts."""

import copy

import pytest
import torch
from oracles import kronecker as oracle
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import lognet
from lognet.nn import PHMGRU, PHMLSTM, KroneckerGRU, KroneckerLSTM

MAKERS = {
    "lstm": lambda i, h, **k: PHMLSTM(i, h, 2, **k),
    "lstm, n = 1": lambda i, h, **k: PHMLSTM(i, h, 1, **k),
    "lstm, fused": lambda i, h, **k: PHMLSTM(i, h, 2, fused=True, **k),
    "lstm, contracted": lambda i, h, **k: PHMLSTM(i, h, 2, impl="contract", **k),
    "gru": lambda i, h, **k: PHMGRU(i, h, 2, **k),
    "gru, fused": lambda i, h, **k: PHMGRU(i, h, 2, fused=True, **k),
    "kronecker": lambda i, h, **k: KroneckerLSTM(i, h, 2, **k),
    "kronecker gru": lambda i, h, **k: KroneckerGRU(i, h, 2, **k),
    "kronecker, padded": lambda i, h, **k: KroneckerLSTM(i, h, 2, sizes="padded", **k),
}


def torch_twin(ours):
    """torch's layer with the dense weights of ours, still connected to our parameters."""
    make = nn.GRU if isinstance(ours, (PHMGRU, KroneckerGRU)) else nn.LSTM
    options = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
    twin = make(ours.input_size, ours.hidden_size, **{name: getattr(ours, name) for name in options}).double()

    def call(*inputs):
        weights = {}
        for i, name in enumerate(ours._names()):
            for side, layers in (("ih", ours.input_layers), ("hh", ours.hidden_layers)):
                weights[f"weight_{side}_{name}"] = torch.cat([linear.weight for linear in layers[i]])
                if ours.bias:
                    bias = getattr(ours, f"bias_{side}_{name}", None)
                    weights[f"bias_{side}_{name}"] = torch.zeros_like(twin.bias_ih_l0) if bias is None else bias
        return torch.func.functional_call(twin, weights, inputs)

    return call


def flat(result):
    """All tensors of a result (output, state)."""
    output, state = result
    output = output.data if isinstance(output, nn.utils.rnn.PackedSequence) else output
    return [output, *(state if isinstance(state, tuple) else (state,))]


def state_of(module, batch):
    shape = (module.num_layers * (1 + module.bidirectional), *batch, module.hidden_size)
    states = tuple(torch.randn(shape, dtype=torch.float64) for _ in range(module.states))
    return states if len(states) > 1 else states[0]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}, {"num_layers": 3}],
    ids=str,
)
def test_as_torch(name, options):
    ours = MAKERS[name](4, 6, dtype=torch.float64, **options)
    twin = torch_twin(ours)
    for x, batch in [
        (torch.randn(5, 3, 4, dtype=torch.float64), (5,) if options.get("batch_first") else (3,)),
        (torch.randn(5, 4, dtype=torch.float64), ()),
        (pack_sequence([torch.randn(n, 4, dtype=torch.float64) for n in (2, 5, 1, 5)], enforce_sorted=False), (4,)),
        (pack_sequence([torch.randn(n, 4, dtype=torch.float64) for n in (4, 2, 2)]), (3,)),
    ]:
        for hx in (None, state_of(ours, batch)):
            inputs = (x,) if hx is None else (x, hx)
            result, expected = flat(ours(*inputs)), flat(twin(*inputs))
            torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
            losses = [sum((t * (i + 1)).square().sum() for i, t in enumerate(r)) for r in (result, expected)]
            grads = [torch.autograd.grad(loss, list(ours.parameters())) for loss in losses]
            torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_packed_layout_is_kept():
    ours = PHMLSTM(4, 6, 2, bidirectional=True)
    packed = pack_padded_sequence(torch.randn(5, 3, 4), torch.tensor([2, 5, 3]), enforce_sorted=False)
    out, _ = ours(packed)
    assert torch.equal(out.batch_sizes, packed.batch_sizes)
    assert torch.equal(out.sorted_indices, packed.sorted_indices)
    alone, _ = ours(nn.utils.rnn.pad_packed_sequence(packed)[0][:2, :1])
    torch.testing.assert_close(nn.utils.rnn.pad_packed_sequence(out)[0][:2, :1], alone)


@pytest.mark.parametrize("name", ["lstm", "lstm, contracted", "gru"])
def test_gradcheck(name):
    ours = MAKERS[name](2, 2, dtype=torch.float64)
    names = [n for n, _ in ours.named_parameters()]
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x, *parameters):
        return tuple(flat(torch.func.functional_call(ours, dict(zip(names, parameters, strict=True)), (x,))))

    assert torch.autograd.gradcheck(function, (x, *ours.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(dtype):
    ours = PHMLSTM(4, 6, 2, dtype=dtype)
    x = torch.randn(5, 3, 4, dtype=dtype)
    out, (h, c) = ours(x)
    assert out.dtype == h.dtype == c.dtype == dtype
    reference = copy.deepcopy(ours).double()(x.double())[0]
    torch.testing.assert_close(out.double(), reference, rtol=0, atol=0.05 if dtype != torch.float32 else 1e-5)


def test_the_printed_equations():
    """R2D2, section 3.1, with h = o * c to the letter."""
    ours = PHMLSTM(4, 6, 2, printed=True, dtype=torch.float64)
    x, h, c = (torch.randn(3, size, dtype=torch.float64) for size in (4, 6, 6))
    w = [[linear.weight for linear in layers[0]] for layers in (ours.input_layers, ours.hidden_layers)]
    y = [x @ wi.T + h @ wh.T + b for wi, wh, b in zip(*w, ours.bias_ih_l0.chunk(4), strict=True)]
    i, f, g, o = y
    new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    out, (h_n, c_n) = ours(x.unsqueeze(0), (h.unsqueeze(0), c.unsqueeze(0)))
    torch.testing.assert_close(c_n[0], new_c)
    torch.testing.assert_close(h_n[0], o * new_c)
    torch.testing.assert_close(out[0], o * new_c)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("n", "parameters"), [(1, 721_200), (2, 361_264), (5, 146_200), (10, 81_200)])
def test_parameters_of_table_1(n, parameters):
    assert count(PHMLSTM(300, 300, n)) == parameters


def test_parameters_of_the_fused_form():
    assert count(PHMLSTM(300, 300, 10, fused=True)) == 75_200
    assert count(PHMLSTM(300, 300, 10, share_rule=True)) == 81_200 - 7 * 1000
    assert count(nn.GRU(8, 8)) == count(PHMGRU(8, 8, 1))


def test_shared_rule():
    ours = PHMLSTM(4, 4, 4, num_layers=2, rule="hamilton", share_rule=True)
    rules = [linear.A for layer in (*ours.input_layers, *ours.hidden_layers) for linear in layer]
    assert all(rule is rules[0] for rule in rules)
    bits = PHMLSTM(4, 4, 4, rule="hamilton", share_rule=True, bits=8)
    assert bits.input_layers[0][0].A is bits.hidden_layers[0][3].A
    oracle.check_log_twin(bits, lambda m: m(torch.ones(3, 2, 4))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAKERS)
def test_log_factors_and_what_the_graph_keeps(name, dtype):
    for bits in (6, 10):
        ours = MAKERS[name](16, 32, bits=bits, dtype=dtype, bidirectional=True)
        x = torch.randn(4, 2, 16, dtype=dtype)
        states = 2 * ours.states * 2 * 32
        outputs = 4 * 2 * 64  # the loss below keeps them; torch may keep them twice
        limit = (x.numel() + states + 2 * outputs) * dtype.itemsize
        oracle.check_log_twin(ours, lambda m, x=x: m(x)[0].tanh(), limit=limit)


def test_wrapped_training_step():
    torch.manual_seed(0)
    ours = lognet.wrap(PHMLSTM(4, 8, 4, num_layers=2, dropout=0.2))
    optimizer = lognet.optim.Madam(ours.parameters(), warmup=0)
    x, losses = torch.randn(6, 8, 4), []
    for _ in range(30):
        loss = (ours(x)[0].mean(-1) - x.mean(-1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_dropout_is_between_layers_only():
    x = torch.randn(5, 3, 4)
    one, two = PHMLSTM(4, 6, 2, dropout=0.5), PHMLSTM(4, 6, 2, num_layers=2, dropout=0.5)
    assert torch.equal(one(x)[0], one(x)[0])
    assert not torch.equal(two(x)[0], two(x)[0])
    two.eval()
    assert torch.equal(two(x)[0], two(x)[0])


def test_state_dict_and_copies():
    ours, other = PHMLSTM(4, 6, 2, num_layers=2), PHMLSTM(4, 6, 2, num_layers=2)
    other.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 4)
    assert torch.equal(ours(x)[0], other(x)[0])
    assert torch.equal(ours(x)[0], copy.deepcopy(ours)(x)[0])
    other.reset_parameters()
    assert not torch.equal(ours(x)[0], other(x)[0])


def test_empty():
    ours = PHMLSTM(4, 6, 2)
    out, (h, _) = ours(torch.zeros(0, 3, 4))
    assert out.shape == (0, 3, 6)
    assert h.shape == (1, 3, 6)


def test_compile():
    ours = PHMLSTM(4, 6, 2)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(oracle.compiled(ours)(x), ours(x))


def test_errors():
    with pytest.raises(ValueError, match="n=4 must divide input_size=6"):
        PHMLSTM(6, 8, 4)
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        PHMGRU(4, 8, 4, num_layers=0)
    with pytest.raises(ValueError, match="dropout must be a probability"):
        PHMLSTM(4, 8, 4, dropout=1.5)
    ours = PHMLSTM(4, 8, 4)
    with pytest.raises(ValueError, match="input must have input_size=4 as its last size, got 5"):
        ours(torch.zeros(3, 2, 5))
    with pytest.raises(ValueError, match=r"input must have 2 \(unbatched\) or 3 dimensions"):
        ours(torch.zeros(4))
    with pytest.raises(ValueError, match=r"hx must have shape \(1, 2, 8\)"):
        ours(torch.zeros(3, 2, 4), (torch.zeros(1, 3, 8), torch.zeros(1, 3, 8)))


def test_states_of_another_form():
    lstm, gru, x, h = PHMLSTM(4, 8, 2), PHMGRU(4, 8, 2), torch.randn(3, 2, 4), torch.randn(1, 2, 8)
    for state in ((h,), h, (h, None)):
        with pytest.raises(TypeError, match="hx must be a tuple of 2 tensors"):
            lstm(x, state)
    with pytest.raises(TypeError, match="hx must be one tensor"):
        gru(x, (h,))
    lstm(x, [h, h])
