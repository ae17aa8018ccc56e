"""What is the factored recurrent layers' own; tests/nn/test_recurrence.py holds them to torch's answers."""

import copy

import pytest
import torch
from oracles import kronecker as oracle
from torch import nn

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


def flat(result):
    """All tensors of a result (output, state)."""
    output, state = result
    output = output.data if isinstance(output, nn.utils.rnn.PackedSequence) else output
    return [output, *(state if isinstance(state, tuple) else (state,))]


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


def test_state_dict_and_copies():
    ours, other = PHMLSTM(4, 6, 2, num_layers=2), PHMLSTM(4, 6, 2, num_layers=2)
    other.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 4)
    assert torch.equal(ours(x)[0], other(x)[0])
    assert torch.equal(ours(x)[0], copy.deepcopy(ours)(x)[0])
    other.reset_parameters()
    assert not torch.equal(ours(x)[0], other(x)[0])


def test_compile():
    ours = PHMLSTM(4, 6, 2)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(oracle.compiled(ours)(x), ours(x))


def test_errors():
    with pytest.raises(ValueError, match="n=4 must divide input_size=6"):
        PHMLSTM(6, 8, 4)
    with pytest.raises(ValueError, match="n=4 must divide proj_size=2"):
        PHMLSTM(4, 8, 4, proj_size=2)
    with pytest.raises(ValueError, match="printed=True is for PHMLSTM only"):
        PHMGRU(4, 8, 4, printed=True)
