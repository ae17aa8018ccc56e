import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import lognet
from lognet import LogTensor
from lognet.optim import Madam

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


class Net(nn.Module):
    """One of most things: convolution, norm, attention, recurrence, tied embeddings, a bare parameter, a buffer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.gain = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("counter", torch.arange(3))
        self.register_buffer("shift", torch.ones(8))

    def forward(self, x):
        h = self.embedding(x)
        h = self.norm(self.conv(h.mT)).mT + self.shift
        h = self.rnn(self.block(h))[0]
        return self.head(h * self.gain * self.frozen)


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return Net().to(dtype)


TOKENS = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 3, 8, 10, 12, 16])
def test_every_floating_parameter_becomes_a_log_tensor_close_to_it(bits, dtype):
    model, original = net(dtype), dict(net(dtype).named_parameters())
    assert lognet.wrap(model, bits=bits) is model
    for name, p in model.named_parameters():
        x = original[name].detach().double()
        assert isinstance(p, LogTensor)
        assert isinstance(p, nn.Parameter)
        assert (p.bits, p.dtype, p.requires_grad) == (bits, dtype, original[name].requires_grad)
        rms = x.square().mean().sqrt().item() or 0.1
        assert float(p.scale) == pytest.approx(max(12 * rms, x.abs().max().item()), rel=1e-6)
        lowest = float(p.scale) / p.format.range
        kept = x.abs() >= lowest
        assert ((p.dequantize(torch.float64) / x)[kept].log().abs() <= p.base_precision / 2 + 1e-6).all()
        assert (p.dequantize(torch.float64)[~kept].abs() <= lowest * 1.0001).all()
    assert type(model.shift) is torch.Tensor
    assert model.counter.dtype == torch.int64


def test_large_weights_are_never_clipped():
    layer = nn.Linear(1000, 1)
    with torch.no_grad():
        layer.weight[0, 0] = 50.0
    lognet.wrap(layer)
    assert layer.weight[0, 0].item() == pytest.approx(50.0)


def test_tied_parameters_stay_tied_and_padding_stays_zero():
    model = lognet.wrap(net())
    assert model.head.weight is model.embedding.weight
    optimizer = Madam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(TOKENS).square().sum().backward()
        optimizer.step()
    assert torch.equal(model.embedding.weight[0], torch.zeros(8))
    assert torch.equal(model.embedding(TOKENS)[0, 3], torch.zeros(8))
    for change in (lambda m: lognet.requantize(m, bits=12), lognet.unwrap):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(model)
        assert model.head.weight is model.embedding.weight
        assert torch.equal(model.embedding.weight[0], torch.zeros(8))


def test_wrap_then_unwrap_gives_the_quantised_values_as_float_parameters():
    model = lognet.wrap(net(), bits=10)
    values = {n: p.detach().dequantize() for n, p in model.named_parameters()}
    expected = model.eval()(TOKENS)
    assert lognet.unwrap(model) is model
    for name, p in model.named_parameters():
        assert type(p) is nn.Parameter
        assert torch.equal(p, values[name])
        assert p.requires_grad == (name != "frozen")
    torch.testing.assert_close(model(TOKENS), expected)
    again = lognet.wrap(model, bits=10)
    for name, p in again.named_parameters():
        torch.testing.assert_close(p.detach().dequantize(), values[name], rtol=0.003, atol=0.003 * float(p.scale))


def test_twelve_bits_hardly_change_a_model_and_fewer_bits_more():
    model = net().eval()
    exact = model(TOKENS)
    errors = [(lognet.wrap(copy.deepcopy(model), bits=b)(TOKENS) - exact).norm() / exact.norm() for b in (16, 12, 8, 4)]
    assert errors[0] < 0.03 < errors[3]  # what stays at 16 bits is the range: zero biases stand on the last rung
    assert errors == sorted(errors)


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_uniform_start_covers_the_ladder(bits):
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200))
    rms = [p.detach().square().mean().sqrt().item() for p in model.parameters()]
    lognet.wrap(model, bits=bits, p_scale=2.0, init="uniform", seed=1)
    for p, sigma in zip(model.parameters(), rms, strict=True):
        assert float(p.scale) == pytest.approx(2 * sigma, rel=1e-6)
    k, signs = model[0].weight.exponent.double(), model[0].weight.signs.double()
    last, n = 2**bits - 1, k.numel()
    assert k.min() == 0
    assert k.max() == last
    assert k.mean().item() == pytest.approx(last / 2, abs=5 * last / math.sqrt(12 * n) + 0.01)
    assert abs(signs.mean().item()) < 5 / math.sqrt(n)
    assert abs(torch.corrcoef(torch.stack([k.flatten(), signs.flatten()]))[0, 1]) < 5 / math.sqrt(n)
    assert not torch.equal(model[0].weight.exponent, model[1].weight.exponent)


def test_seeds_repeat():
    make = lambda seed: lognet.wrap(nn.Linear(9, 9), init="uniform", seed=seed).weight.exponent
    assert torch.equal(make(1), make(1))
    assert not torch.equal(make(1), make(2))


def bits_of(model):
    return {n: getattr(p, "bits", None) for n, p in model.named_parameters(remove_duplicate=False)}


def test_include_exclude_and_mixed_widths():
    wrapped = lambda **kw: {n for n, b in bits_of(lognet.wrap(net(), **kw)).items() if b is not None}
    everything = wrapped()
    assert (
        wrapped(include="conv.*")
        == wrapped(include="conv")
        == wrapped(include=nn.Conv1d)
        == {"conv.weight", "conv.bias"}
    )
    assert wrapped(exclude="*.bias") == {n for n in everything if not n.endswith(".bias")}
    assert wrapped(exclude=[nn.LayerNorm, "norm"]) == {n for n in everything if "norm" not in n}
    assert wrapped(include=["block", "gain"], exclude=nn.MultiheadAttention) == {
        n for n in everything if (n.startswith("block") and "self_attn" not in n) or n == "gain"
    }
    assert wrapped(include="head.weight") == {"head.weight", "embedding.weight"}
    bits = bits_of(lognet.wrap(net(), bits=8, bits_for={"conv.bias": 16, "conv": 12, "*norm*": 10}))
    assert (bits["conv.bias"], bits["conv.weight"], bits["norm.weight"], bits["block.norm1.bias"]) == (16, 12, 10, 10)
    assert bits["rnn.weight_ih_l0"] == 8
    bits = bits_of(lognet.wrap(net(), bits_for={"head": 4}))
    assert (bits["head.weight"], bits["embedding.weight"], bits["conv.weight"]) == (4, 4, 8)


def test_a_tied_parameter_chosen_by_one_name_is_replaced_under_all():
    model = lognet.wrap(net(), include="head.weight")
    assert model.head.weight is model.embedding.weight
    assert isinstance(model.head.weight, LogTensor)
    model = lognet.wrap(net(), exclude="embedding")
    assert model.head.weight is model.embedding.weight
    assert not isinstance(model.head.weight, LogTensor)


def with_value(model, name, value):
    dict(model.named_parameters())[name].data.view(-1)[0] = value
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "error", "words"),
    [
        (net, {"bits": 17}, ValueError, "bits must be from 2 to 16, got 17"),
        (net, {"bits": 8.0}, TypeError, "bits must be an int"),
        (net, {"base_precision": 0.0}, ValueError, "base_precision must be"),
        (net, {"bits": 12, "base_precision": 1.0}, ValueError, "beyond float32"),
        (net, {"p_scale": -1.0}, ValueError, "p_scale must be"),
        (net, {"init": "normal"}, ValueError, "init must be one of 'quantize', 'uniform', got 'normal'"),
        (net, {"seed": "a"}, TypeError, "seed must be an int"),
        (net, {"include": "nothing*"}, ValueError, "include: 'nothing.' matches no parameter"),
        (net, {"exclude": ["conv", nn.Conv3d]}, ValueError, "exclude: 'Conv3d' matches no parameter"),
        (net, {"exclude": 3}, TypeError, "exclude"),
        (net, {"bits_for": {"x": 8}}, ValueError, "bits_for: 'x' matches no parameter"),
        (net, {"bits_for": {"conv": 1}}, ValueError, "bits must be from 2 to 16, got 1"),
        (
            net,
            {"bits_for": {"head": 4, "embedding": 8}},
            ValueError,
            "one tied parameter several widths: embedding.weight 8",
        ),
        (lambda: with_value(net(), "conv.weight", math.nan), {}, ValueError, "parameter conv.weight must be finite"),
        (lambda: with_value(net(), "norm.bias", -math.inf), {}, ValueError, "parameter norm.bias must be finite"),
        (lambda: lognet.wrap(net()), {}, ValueError, "is wrapped already.*requantize"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2, sparse=True)),
            {},
            ValueError,
            "1.weight.*sparse=False",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)), {}, ValueError, "1.weight is not initialised"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), {}, TypeError, "weight is complex"),
        (lambda: nn.Linear(2, 2, device="meta"), {}, ValueError, "weight is on the meta device"),
    ],
)
def test_bad_input_changes_nothing(model, arguments, error, words):
    model = model()
    before = [(n, p, type(p)) for n, p in model.named_parameters(remove_duplicate=False)]
    with pytest.raises(error, match=words):
        lognet.wrap(model, **arguments)
    after = [(n, p, type(p)) for n, p in model.named_parameters(remove_duplicate=False)]
    assert all(a[0] == b[0] and a[1] is b[1] and a[2] is b[2] for a, b in zip(before, after, strict=True))


def test_unwrapping_a_float_model_is_an_error():
    for change in (lognet.unwrap, lambda m: lognet.requantize(m, bits=8)):
        with pytest.raises(ValueError, match="Linear has no LogTensor parameters; wrap it first"):
            change(nn.Linear(2, 2))


def test_wrapping_under_madam_warns():
    model = nn.Linear(2, 2)
    optimizer = Madam(model.parameters())
    model, optimizer, others = *copy.deepcopy((model, optimizer)), Madam(nn.Linear(2, 2).parameters())
    with pytest.warns(UserWarning, match="a Madam optimizer holds parameters that were just replaced"):
        lognet.wrap(model)
    optimizer = Madam(model.parameters())
    with pytest.warns(UserWarning, match="make the optimizer after"):
        lognet.requantize(model, bits=10)
    del optimizer
    lognet.requantize(model, bits=8)  # warnings are errors
    assert len(others.param_groups) == 1


@pytest.mark.parametrize("change", [lognet.wrap, lambda m: lognet.requantize(m, 10), lognet.unwrap])
def test_gradients_hooks_and_attributes_go_along(change):
    model = nn.Linear(4, 3)
    if change is not lognet.wrap:
        lognet.wrap(model)
    seen = []
    handles = [
        model.weight.register_hook(lambda grad: seen.append(grad.shape)),
        model.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p)),
    ]
    model.weight.tag, model.bias.grad = "a", torch.ones(3)
    change(model)
    assert model.weight.tag == "a"
    assert torch.equal(model.bias.grad, torch.ones(3))
    assert vars(model.weight).keys() == {"tag", *vars(nn.Parameter(model.weight.detach()))}
    model(torch.ones(1, 4)).sum().backward()
    assert seen[0] == (3, 4)
    assert seen[1] is model.weight
    for handle in handles:
        handle.remove()
    model(torch.ones(1, 4)).sum().backward()
    assert len(seen) == 2


@pytest.mark.parametrize(("bits", "new"), [(12, 8), (8, 12), (8, 3)])
def test_requantize_takes_the_nearest_rungs_of_the_same_scale(bits, new):
    model = lognet.wrap(net(), bits=bits)
    old = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert lognet.requantize(model, bits=new) is model
    for name, p in model.named_parameters():
        assert (p.bits, float(p.scale)) == (new, float(old[name].scale))
        assert torch.equal(p.signs, old[name].signs)
        kept = old[name].dequantize().abs() >= float(p.scale) / p.format.range
        error = (p.detach().dequantize() / old[name].dequantize()).abs().log().abs()[kept]
        assert error.numel() == 0 or error.max() <= p.base_precision / 2 + 1e-6 or p.mask is not None
    lognet.requantize(model, bits=5, include="conv")
    assert model.conv.weight.bits == 5
    assert model.rnn.weight_ih_l0.bits == new


def test_integer_parameters_and_gradients_pass_through():
    model = nn.Linear(2, 2)
    model.index = nn.Parameter(torch.arange(3), requires_grad=False)
    model(torch.ones(1, 2)).sum().backward()
    grad = model.weight.grad
    lognet.wrap(model)
    assert model.index.dtype == torch.int64
    assert model.weight.grad is grad


@pytest.mark.parametrize("bits", [3, 8, 10])
def test_state_dicts_move_between_wrapped_and_float_models(bits):
    torch.manual_seed(1)
    trained = Net()
    wrapped = lognet.wrap(copy.deepcopy(trained), bits=bits)
    fresh = lognet.wrap(net(), bits=bits)
    fresh.load_state_dict(wrapped.state_dict())
    for (name, a), b in zip(wrapped.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a.exponent, b.exponent), name
        assert a.scale == b.scale
    assigned = net()
    assigned.load_state_dict(wrapped.state_dict(), assign=True)
    assert isinstance(assigned.conv.weight, LogTensor)
    floats = net()
    floats.load_state_dict(wrapped.state_dict())
    assert type(floats.conv.weight) is nn.Parameter
    assert torch.equal(floats.conv.weight, wrapped.conv.weight)
    with pytest.raises(RuntimeError, match="the ladders differ"):
        lognet.wrap(net(), bits=9).load_state_dict(wrapped.state_dict())
    fresh = lognet.wrap(copy.deepcopy(trained), bits=bits)
    fresh.load_state_dict(trained.state_dict())  # floats are encoded on the ladder as it is
    for a, b in zip(fresh.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(a.exponent, b.exponent)  # the signs of zeros are drawn anew


@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize(
    ("kwargs", "weights"),
    [
        ({}, (1 / 3, 2 / 3)),
        ({"multi_avg_fn": get_ema_multi_avg_fn(0.5)}, (0.25, 0.75)),
        ({"avg_fn": lambda a, p, n: a + (p - a) / (n + 1)}, (1 / 3, 2 / 3)),
    ],
)
@pytest.mark.filterwarnings("ignore:an average held in a LogTensor stands still")
def test_averages_on_the_ladder_are_those_of_floats_to_the_nearest_rung(use_buffers, kwargs, weights):
    first, second = lognet.wrap(net(), bits=12), lognet.wrap(net(), bits=12)
    second.conv.weight.data.mul_(0.5)
    average = AveragedModel(first, use_buffers=use_buffers, **kwargs)
    for model in (first, second, second):
        average.update_parameters(model)
    expected = sum(
        share * m.conv.weight.detach().dequantize() for share, m in zip(weights, (first, second), strict=True)
    )
    assert isinstance(average.module.conv.weight, LogTensor)
    error = (average.module.conv.weight.detach() - expected).abs()
    lowest = float(first.conv.weight.scale) / first.conv.weight.format.range
    assert (error <= 2 * first.conv.weight.base_precision * expected.abs() + 2 * lowest).all()
    assert (expected.abs() > 2 * lowest).float().mean() > 0.5


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = self.a
        self.c = nn.Linear(3, 3)


def test_a_shared_module_is_chosen_by_any_of_its_names_and_stays_shared():
    kinds = lambda model: [isinstance(p, LogTensor) for p in model.parameters()]
    assert kinds(lognet.wrap(Shared(), exclude="b")) == [False, False, True, True]
    model = lognet.wrap(Shared(), include="b.weight", bits_for={"b": 5})
    assert kinds(model) == [True, False, False, False]
    assert model.a is model.b
    assert model.a.weight.bits == 5
    assert kinds(lognet.unwrap(model)) == [False] * 4


def test_generators_of_patterns_are_read_once():
    model = nn.Linear(2, 2)
    lognet.wrap(model, exclude=(pattern for pattern in ["weight"]))
    assert [isinstance(p, LogTensor) for p in model.parameters()] == [False, True]


def test_tied_embeddings_keep_each_padding_row_zero():
    first, second = nn.Embedding(5, 3, padding_idx=0), nn.Embedding(5, 3, padding_idx=2)
    with torch.no_grad():
        first.weight[2] = 0
    second.weight = first.weight
    lognet.wrap(nn.ModuleList([first, second]))
    assert (first.weight == 0).all(1).tolist() == [True, False, True, False, False]


def test_only_the_table_of_an_embedding_has_a_padding_row():
    table = nn.Embedding(5, 3, padding_idx=0)
    table.register_parameter("shift", nn.Parameter(torch.zeros(3)))
    lognet.wrap(table)
    assert table.shift.mask is None
    assert table.weight.mask is not None


def test_a_sparse_embedding_is_refused_under_any_of_its_names():
    linear, table = nn.Linear(3, 5, bias=False), nn.Embedding(5, 3, sparse=True)
    table.weight = linear.weight
    with pytest.raises(ValueError, match=r"1.weight belongs to an embedding with sparse=True"):
        lognet.wrap(nn.ModuleList([linear, table]))
    assert not isinstance(linear.weight, LogTensor)


def test_what_is_not_a_module_or_a_mapping_is_named():
    for change in (lognet.wrap, lognet.unwrap, lambda m: lognet.requantize(m, bits=8)):
        with pytest.raises(TypeError, match="model must be a torch.nn.Module, got list"):
            change([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match="bits_for must map patterns to bits"):
        lognet.wrap(nn.Linear(2, 2), bits_for=["weight"])
    with pytest.raises(ValueError, match=r"bits_for\['weight'\]: bits must be from 2 to 16, got 99"):
        lognet.wrap(nn.Linear(2, 2), bits_for={"weight": 99})


def test_loading_takes_over_the_mask():
    masked, bare = lognet.wrap(nn.Embedding(5, 3, padding_idx=1)), lognet.wrap(nn.Embedding(5, 3))
    bare.load_state_dict(masked.state_dict())
    assert torch.equal(bare.weight, masked.weight)
    assert (bare.weight[1] == 0).all()
    bare.weight.detach().set_mask_(None)
    assert (masked.weight[1] == 0).all()
