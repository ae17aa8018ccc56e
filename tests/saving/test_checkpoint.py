"""lognet.save and lognet.load of whole models: exactly, or an error before anything is changed."""

import copy
import os

import pytest
import torch
from oracles.same import assert_same
from torch import nn

import lognet
from lognet import LogTensor
from lognet.optim import Madam

TOKENS = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])


class Net(nn.Module):
    """Tied embeddings with padding, nested modules, buffers of several kinds, float parameters, a frozen one."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.inner = nn.ModuleDict({"conv": nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8))})
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gain = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("counter", torch.arange(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        h = self.inner["conv"](self.embedding(x).mT).mT
        h = self.attention(h, h, h)[0]
        return self.head(self.rnn(h)[0] * self.gain * self.frozen)


def net(seed=0, dtype=torch.float32, **kwargs):
    torch.manual_seed(seed)
    model = Net().to(dtype=dtype)
    model.register_buffer("wave", torch.polar(torch.ones(4), torch.arange(4.0)))  # which .to(dtype) would make real
    return lognet.wrap(model, **kwargs) if kwargs else model


def trained(model, steps=3, **kwargs):
    optimizer = Madam(model.parameters(), lr=0.05, **kwargs)
    for _ in range(steps):
        optimizer.zero_grad()
        model(TOKENS).square().sum().backward()
        optimizer.step()
    return model


def assert_equal_models(a, b):
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        assert_same(x, y)


ARGUMENTS = [
    {"bits": 8},
    {"bits": 10, "base_precision": 0.004},
    {"bits": 3},
    {"bits": 12, "exclude": ["rnn", "*.bias"], "bits_for": {"embedding": 5}},
    {},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kwargs", ARGUMENTS)
def test_a_model_comes_back_exactly(tmp_path, kwargs, dtype):
    model = trained(net(dtype=dtype, **kwargs))
    lognet.save(model, tmp_path / "a.safetensors")
    other = net(1, dtype=dtype, **kwargs)
    before = list(other.parameters())
    assert lognet.load(other, tmp_path / "a.safetensors") is other
    assert_equal_models(other, model)
    assert all(p is q for p, q in zip(other.parameters(), before, strict=True))
    assert other.head.weight is other.embedding.weight
    assert not other.frozen.requires_grad
    assert torch.equal(other.eval()(TOKENS), model.eval()(TOKENS))
    assert torch.equal(other.embedding.weight[0], torch.zeros(8, dtype=dtype))


def test_layers_over_algebras_and_pruned_ones_come_back(tmp_path):
    make = lambda: lognet.wrap(
        nn.Sequential(
            lognet.nn.AlgebraLinear(8, 8, algebra="H"), lognet.nn.PHMLinear(8, 8, 2), nn.LSTM(8, 4), nn.Linear(8, 8)
        )
    )
    model = make()
    model[3].weight.set_mask_(torch.rand(8, 8) < 0.5)
    lognet.save(model, tmp_path / "a")
    assert_equal_models(lognet.load(make(), tmp_path / "a"), model)


def test_training_goes_on_bit_for_bit(tmp_path):
    model = net(bits=8)
    optimizer = Madam(model.parameters(), lr=0.05)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(TOKENS).square().sum().backward()
        optimizer.step()

    step(model, optimizer)
    lognet.save(model, tmp_path / "model")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer")
    other = lognet.load(net(1, bits=8), tmp_path / "model")
    resumed = Madam(other.parameters(), lr=0.05)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer", weights_only=True))
    for _ in range(3):
        step(model, optimizer)
        step(other, resumed)
    assert_equal_models(model, other)


def test_an_optimizer_made_before_loading_moves_what_was_loaded(tmp_path):
    model = net(bits=8)
    lognet.save(model, tmp_path / "a")
    other = net(1, bits=8)
    optimizer = Madam(other.parameters(), lr=0.1)
    lognet.load(other, tmp_path / "a")
    other(TOKENS).sum().backward()
    optimizer.step()
    assert not torch.equal(other.rnn.weight_hh_l0, model.rnn.weight_hh_l0)


def test_a_graph_from_before_loading_is_noticed(tmp_path):
    model = lognet.wrap(nn.Linear(3, 3))
    lognet.save(model, tmp_path / "a")
    y = model(torch.randn(2, 3, requires_grad=True)).square().sum()
    lognet.load(model, tmp_path / "a")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_the_file_holds_the_bits_and_little_more(tmp_path):
    model = lognet.wrap(nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 300)), bits=8)
    lognet.save(model, tmp_path / "a")
    n = sum(p.numel() for p in model.parameters())
    assert n * 9 / 8 < os.path.getsize(tmp_path / "a") < n * 9 / 8 + 2500


def test_codes_load_whatever_dtype_they_are_reported_in(tmp_path):
    model = lognet.wrap(nn.Linear(4, 3))
    lognet.save(model, tmp_path / "a")
    other = lognet.load(lognet.wrap(nn.Linear(4, 3)).bfloat16(), tmp_path / "a")
    assert other.weight.dtype == torch.bfloat16
    assert torch.equal(other.weight.exponent, model.weight.exponent)


# What does not fit


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


def untied():
    model = net()
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    return lognet.wrap(model, bits=8)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            lambda: nn.Linear(2, 2),
            r"Linear: missing from the file: weight, bias; not in the model: .*, and \d+ more\. Build",
        ),
        (lambda: net(), "has bits=8, base_precision=0.02166 in the file and no ladder .it is float. in the model"),
        (lambda: net(bits=10), "in the file and bits=10, base_precision=0.005415 in the model"),
        (
            lambda: net(bits=8, base_precision=0.01),
            "base_precision=0.02166 in the file and bits=8, base_precision=0.01 in",
        ),
        (lambda: net(bits=8, exclude="gain"), r"Net: gain has bits=8.*no ladder .it is float. in the model\. Build"),
        (
            lambda: lognet.wrap(nn.Sequential(net()), bits=8),
            r"missing from the file: 0\..*not in the model: .*embedding.weight",
        ),
        (lambda: nn.ModuleDict({"deep": net()}), "missing from the file: .*deep.embedding.weight"),
    ],
)
def test_a_model_that_does_not_fit_is_left_as_it_was(tmp_path, model, words):
    lognet.save(net(bits=8), tmp_path / "a")
    model = model()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=words):
        lognet.load(model, tmp_path / "a")
    assert_equal_models(model, before)


@pytest.mark.parametrize(
    ("saved", "model", "words"),
    [
        (nn.Linear(2, 3), nn.Linear(3, 3), r"weight has shape \(3, 2\) in the file and \(3, 3\) in the model"),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), "not in the model: bias"),
        (
            nn.Linear(2, 3),
            nn.Linear(2, 3).bfloat16(),
            "weight is torch.float32 in the file and torch.bfloat16 in the model",
        ),
        (nn.Linear(2, 3), nn.Linear(2, 3, device="meta"), "weight is on the meta device in the model: materialise it"),
        (nn.Linear(2, 3), nn.LazyLinear(3), "weight is not initialised yet in the model"),
        (nn.Linear(2, 3), Extra(2, 3), "missing from the file: _extra_state"),
    ],
)
def test_float_models_are_compared_too(tmp_path, saved, model, words):
    lognet.save(saved, tmp_path / "a")
    with pytest.raises(ValueError, match=words):
        lognet.load(model, tmp_path / "a")


def test_two_tensors_do_not_load_into_one(tmp_path):
    lognet.save(untied(), tmp_path / "a")
    model = net(1, bits=8)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="embedding.weight and head.weight are two tensors in the file and one in the"):
        lognet.load(model, tmp_path / "a")
    assert_equal_models(model, before)
    lognet.save(net(bits=8), tmp_path / "b")
    loaded = lognet.load(untied(), tmp_path / "b")  # one into two is no loss
    assert torch.equal(loaded.embedding.weight, loaded.head.weight)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], lambda b: b""])
def test_a_damaged_file_changes_nothing(tmp_path, damage):
    path = tmp_path / "a"
    lognet.save(net(bits=8), path)
    path.write_bytes(damage(path.read_bytes()))
    model = net(1, bits=8)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"a is .*Restore it from a copy"):
        lognet.load(model, path)
    assert_equal_models(model, before)


def test_extra_state_is_refused_unless_it_is_a_tensor(tmp_path):
    with pytest.raises(TypeError, match="_extra_state is a dict, not a tensor"):
        lognet.save(Extra(2, 2), tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", [lognet.save, lognet.load])
def test_what_is_not_a_module_is_named(tmp_path, call):
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got dict"):
        call({}, tmp_path / "a")


# Signs that a seed gives back


def test_frozen_signs_need_no_bits(tmp_path):
    model = trained(net(bits=8, sign_seed=3), steps=20, sign_crossing=False)
    lognet.save(model, tmp_path / "with")
    lognet.save(model, tmp_path / "without", sign_seed=3)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() >= 2)
    saved = os.path.getsize(tmp_path / "with") - os.path.getsize(tmp_path / "without")
    assert saved > matrices / 8 - 100
    for name in ("with", "without"):  # any model of the kind: the file knows its keys
        assert_equal_models(lognet.load(net(1, bits=8), tmp_path / name), model)


def test_exactly_b_bits_a_weight(tmp_path):
    model = lognet.wrap(nn.Linear(1000, 100, bias=False), bits=6, sign_seed=0)
    lognet.save(model, tmp_path / "a", sign_seed=0)
    assert os.path.getsize(tmp_path / "a") < 100_000 * 6 / 8 + 600


def test_seeded_signs_are_fair_independent_and_do_not_touch_vectors():
    plain, model = net(bits=8), net(bits=8, sign_seed=3)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.exponent, q.exponent), name
        assert torch.equal(p.signs, q.signs) == (p.dim() < 2), name
    layers = lognet.wrap(nn.Sequential(*(nn.Linear(200, 200) for _ in range(2))), sign_seed=0)
    a, b = (layer.weight.signs.double().flatten() for layer in layers)
    assert max(abs(a.mean()), abs(b.mean()), abs((a * b).mean())) < 5 / 200
    again = lognet.wrap(nn.Sequential(*(nn.Linear(200, 200) for _ in range(2))), sign_seed=0)
    assert torch.equal(again[1].weight.signs, layers[1].weight.signs)


def test_seeded_signs_survive_a_new_width_and_a_wrapper_around_the_model(tmp_path):
    model = lognet.requantize(net(bits=12, sign_seed=3), bits=6)
    outer = nn.ModuleDict({"module": model})
    lognet.save(outer, tmp_path / "a", sign_seed=3)
    other = nn.ModuleDict({"module": net(1, bits=6)})
    assert_equal_models(lognet.load(other, tmp_path / "a"), outer)


def test_signs_that_do_not_come_from_the_seed_are_refused_by_name(tmp_path):
    crossed = net(bits=8, sign_seed=3)
    weight = crossed.rnn.weight_hh_l0
    weight.detach().write_codes_(weight.exponent, weight.signs * torch.where(torch.arange(8) == 5, -1, 1))
    for model, words in (
        (crossed, r"signs of rnn.weight_hh_l0 are not those of sign_seed=3: 24 of 192 differ.*sign_crossing=False"),
        (net(bits=8, sign_seed=4), "embedding.weight are not those of sign_seed=3"),
        (net(bits=8), "embedding.weight are not those of sign_seed=3"),
        (net(), "sign_seed=3: the model has no LogTensor of two or more dimensions"),
    ):
        with pytest.raises(ValueError, match=words):
            lognet.save(model, tmp_path / "a", sign_seed=3)
        assert os.listdir(tmp_path) == []
    for call in (lognet.wrap, lambda m, **kwargs: lognet.save(m, tmp_path / "a", **kwargs)):
        with pytest.raises(TypeError, match="sign_seed must be an int, or None.*got 'x'"):
            call(nn.Linear(2, 2), sign_seed="x")


def test_a_lazy_model_is_named_with_a_sign_seed_too():
    with pytest.raises(ValueError, match="weight is not initialised yet; run the lazy module once"):
        lognet.wrap(nn.LazyLinear(3), sign_seed=0)


def test_wrapping_a_part_with_a_sign_seed_saves_that_part_without_signs(tmp_path):
    model = net(bits=8, sign_seed=3, include="rnn")
    lognet.save(model, tmp_path / "a", sign_seed=3)
    other = lognet.load(net(1, bits=8, include="rnn"), tmp_path / "a")
    assert_equal_models(other, model)
    assert isinstance(other.rnn.weight_hh_l0, LogTensor)
