"""Every recurrent layer gives the answer of torch.nn.LSTM and GRU to every kind of call: their numbers, or an error."""

import pytest
import torch
from oracles.same import assert_same_answer
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lognet.nn import PHMGRU, PHMLSTM, AlgebraGRU, AlgebraLSTM, KroneckerGRU, KroneckerLSTM
from lognet.tensor.floats import dense


def over(algebra, **more):
    return [lambda *a, make=make, **k: make(*a, algebra=algebra, **k, **more) for make in (AlgebraLSTM, AlgebraGRU)]


def of(lstm, gru, size, **more):
    return [lambda i, h, make=make, **k: make(i, h, size, **k, **more) for make in (lstm, gru)]


FAMILIES = {
    **{name: over(name) for name in ("R", "C", "H", "M2R", "D2")},
    "phm, n = 1": of(PHMLSTM, PHMGRU, 1),
    "phm": of(PHMLSTM, PHMGRU, 4),
    "phm, fused": of(PHMLSTM, PHMGRU, 2, fused=True),
    "phm, contracted": of(PHMLSTM, PHMGRU, 2, impl="contract"),
    "kronecker": of(KroneckerLSTM, KroneckerGRU, 3),
    "kronecker, padded": of(KroneckerLSTM, KroneckerGRU, 2, sizes="padded"),
    "H, 10 bits": over("H", bits=10),
    "M2R, 10 bits": over("M2R", bits=10),
    "phm, 10 bits": of(PHMLSTM, PHMGRU, 4, bits=10),
    "kronecker, 10 bits": of(KroneckerLSTM, KroneckerGRU, 3, bits=10),
}
KINDS = ("lstm", "gru")
OPTIONS = {
    "plain": {},
    "deep": {"num_layers": 2, "bidirectional": True},
    "batch first, no bias": {"batch_first": True, "bias": False},
    "projected": {"proj_size": 4},
    "deep, projected": {"proj_size": 4, "num_layers": 2, "bidirectional": True, "batch_first": True},
}


def make(family, kind, option="plain", **more):
    if kind == "gru" and "proj_size" in OPTIONS[option]:
        pytest.skip("torch.nn.GRU has no projections")
    ours = FAMILIES[family][KINDS.index(kind)](8, 12, **OPTIONS[option], **more, dtype=torch.float64)
    with torch.no_grad():
        for name, p in ours.named_parameters():
            if "bias" in name:  # those of algebras start at zero
                p.copy_(torch.rand(p.shape) - 0.5)
    return ours


def torch_twin(ours):
    """torch's layer with the dense weights of ours, still connected to our parameters."""
    names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
    options = {name: getattr(ours, name) for name in names}
    options |= {"proj_size": ours.proj_size} if ours.proj_size else {}
    twin = (nn.LSTM if ours.states == 2 else nn.GRU)(8, 12, **options).double().train(ours.training)

    def weights():
        if hasattr(ours, "algebra"):
            return {
                n: ours.algebra.expand(p) if n.startswith("weight") else dense(p) for n, p in ours.named_parameters()
            }
        found = {}
        for i, name in enumerate(ours._names()):
            sides = {"ih": ours.input_layers, "hh": ours.hidden_layers}
            sides |= {"hr": ours.projections} if ours.proj_size else {}
            for side, layers in sides.items():
                found[f"weight_{side}_{name}"] = torch.cat([linear.weight for linear in layers[i]])
            for side in ("ih", "hh") if ours.bias else ():
                bias = getattr(ours, f"bias_{side}_{name}", None)
                found[f"bias_{side}_{name}"] = torch.zeros_like(twin.bias_ih_l0) if bias is None else dense(bias)
        return found

    return lambda *inputs: torch.func.functional_call(twin, weights(), inputs)


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def sequences(ours, time=5, batch=3):
    return randn(batch, time, 8) if ours.batch_first else randn(time, batch, 8)


def packed(lengths, enforce_sorted):
    return pack_padded_sequence(
        randn(max(lengths), len(lengths), 8), torch.tensor(lengths), enforce_sorted=enforce_sorted
    )


def state(ours, *batch, extra=0):
    count = ours.num_layers * (1 + ours.bidirectional)
    sizes = [ours.proj_size or 12, 12][: ours.states]
    found = tuple(randn(count, *batch, size + extra) for size in sizes)
    return found if len(found) > 1 else found[0]


def each(hx, change):
    return tuple(map(change, hx)) if isinstance(hx, tuple) else change(hx)


CALLS = {
    "zeros": lambda m: (sequences(m),),
    "a state": lambda m: (sequences(m), state(m, 3)),
    "a list of states": lambda m: (sequences(m), list(state(m, 3)) if m.states == 2 else state(m, 3)),
    "one step": lambda m: (sequences(m, time=1), state(m, 3)),
    "unbatched": lambda m: (randn(5, 8),),
    "unbatched, a state": lambda m: (randn(5, 8), state(m)),
    "sorted": lambda m: (packed([5, 4, 2, 2], True),),
    "unsorted": lambda m: (packed([2, 5, 1, 4], False), state(m, 4)),
    "one length": lambda m: (packed([3, 3], True), state(m, 2)),
    "no batch": lambda m: (sequences(m, batch=0),),
    "no batch, a state": lambda m: (sequences(m, batch=0), state(m, 0)),
    "no time": lambda m: (sequences(m, time=0),),
    "no time, unbatched": lambda m: (randn(0, 8), state(m)),
    "one dimension": lambda m: (randn(8),),
    "four dimensions": lambda m: (randn(2, 5, 3, 8),),
    "another width": lambda m: (sequences(m)[..., :7],),
    "a packed one of another width": lambda m: (packed([3, 2], True)._replace(data=randn(5, 7)),),
    "another dtype": lambda m: (sequences(m).float(),),
    "a state of another dtype": lambda m: (sequences(m), each(state(m, 3), torch.Tensor.float)),
    "a state of another batch": lambda m: (sequences(m), state(m, 2)),
    "a state of another width": lambda m: (sequences(m), state(m, 3, extra=1)),
    "a state of one layer more": lambda m: (sequences(m), each(state(m, 3), lambda s: torch.cat([s, s[:1]]))),
    "an unbatched state": lambda m: (sequences(m), state(m)),
    "a batched state": lambda m: (randn(5, 8), state(m, 1)),
    "a packed one with another batch": lambda m: (packed([2, 5, 1], False), state(m, 2)),
    "a single state or a pair": lambda m: (sequences(m), state(m, 3)[0] if m.states == 2 else (state(m, 3),)),
    "half a pair": lambda m: (sequences(m), (state(m, 3)[0],) if m.states == 2 else [state(m, 3)]),
}


def flat(result):
    output, state = result
    output = list(output) if isinstance(output, PackedSequence) else [output]
    return [*output, *(state if isinstance(state, tuple) else (state,))]


def leaves(args):
    """The floating tensors among arguments, which then need gradients."""
    for x in args:
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            yield x.requires_grad_()
        elif isinstance(x, (tuple, list)):
            yield from leaves(x)


def outcome(call, ours, args):
    """Output, states and the gradients of parameters, input and states; or the error."""
    wanted = [*ours.parameters(), *leaves(args)]
    try:
        found = flat(call(*args))
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        return error
    floating = [t for t in found if t is not None and t.is_floating_point()]
    loss = sum((i + 1) * t.square().sum() for i, t in enumerate(floating))
    return found + list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_call(family, kind, option):
    torch.manual_seed(0)
    ours = make(family, kind, option)
    twin = torch_twin(ours)
    for where, call in CALLS.items():
        args = call(ours)
        assert_same_answer(outcome(ours, ours, args), outcome(twin, ours, args), where, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_between_layers_only(family, kind):
    x = randn(5, 3, 8)
    one, two = (make(family, kind, dropout=0.5, num_layers=layers) for layers in (1, 2))
    assert torch.equal(one(x)[0], one(x)[0])
    assert not torch.equal(two(x)[0], two(x)[0])
    two.eval()
    torch.testing.assert_close(two(x), torch_twin(two)(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sequence_does_not_see_the_others_of_its_batch(family):
    ours = make(family, "lstm", "deep, projected")
    one = pack_padded_sequence(randn(5, 3, 8), torch.tensor([2, 5, 3]), enforce_sorted=False)
    together = pad_packed_sequence(ours(one)[0], batch_first=True)[0][0, :2]
    alone = ours(pad_packed_sequence(one, batch_first=True)[0][0, :2])[0]
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"dropout": 1.5}, "dropout must be a probability, between 0 and 1, got 1.5"),
        ({"proj_size": 12}, "proj_size=12 must be below hidden_size=12"),
        ({"proj_size": -4}, "proj_size must be at least 0, got -4"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_that_torch_refuses(family, options, message):
    with pytest.raises(ValueError, match=message):
        make(family, "lstm", **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_name_what_is_wrong(family):
    lstm, gru, x, h = make(family, "lstm"), make(family, "gru"), randn(5, 3, 8), randn(1, 3, 12)
    with pytest.raises(ValueError, match="proj_size=4 is for LSTMs only"):
        make(family, "gru", proj_size=4)
    with pytest.raises(ValueError, match="at least one step of time"):
        gru(x[:0])
    with pytest.raises(ValueError, match=r"input must have input_size=8 last, got shape \(5, 3, 7\)"):
        gru(x[..., :7])
    with pytest.raises(ValueError, match=r"input must be \(time, batch, 8\) or \(time, 8\), got \(8,\)"):
        gru(x[0, 0])
    with pytest.raises(ValueError, match=r"hx\[1\] must have shape \(1, 3, 12\), got \(1, 3, 11\)"):
        lstm(x, (h, h[..., :11]))
    with pytest.raises(TypeError, match=r"hx must be the pair \(h, c\) of tensors, got Tensor"):
        lstm(x, h)
    with pytest.raises(TypeError, match=r"hx must be the pair \(h, c\) of tensors, got tuple"):
        lstm(x, (h, None))
    with pytest.raises(TypeError, match="hx must be a tensor, got tuple"):
        gru(x, (h,))
    with pytest.raises(TypeError, match="hx is torch.float32 but the parameters are torch.float64"):
        gru(x, h.float())
    with pytest.raises(TypeError, match="input is torch.float32 but the parameters are torch.float64"):
        lstm(x.float())


@pytest.mark.parametrize("family", FAMILIES)
def test_repr_has_what_is_not_a_default(family):
    text = repr(make(family, "lstm", "deep, projected"))
    assert "8, 12, num_layers=2, batch_first=True, bidirectional=True, proj_size=4" in text
