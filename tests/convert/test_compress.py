"""Whole models: what is replaced, the totals of the papers, and starting from trained weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lognet
from lognet import PHM, Kronecker, LogTensor, LowRank, Word2KetXS, compress
from lognet.nn import (
    PHMGRU,
    PHMLSTM,
    KroneckerEmbedding,
    KroneckerGRU,
    KroneckerLinear,
    KroneckerLSTM,
    KroneckerMultiheadAttention,
    LowRankLinear,
    PHMLinear,
    PHMMultiheadAttention,
    TiedOutput,
    Word2KetXSEmbedding,
)
from lognet.optim import Madam


class T5Sized(nn.Module):
    """The layers of T5-small, with their names and tied tables, without the computation."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(32128, 512)
        self.lm_head = nn.Linear(512, 32128, bias=False)
        self.lm_head.weight = self.shared.weight
        linear = lambda d, k: nn.Linear(d, k, bias=False)
        attention = lambda: nn.ModuleDict({name: linear(512, 512) for name in "qkvo"})
        forward = lambda: nn.ModuleDict({"wi": linear(512, 2048), "wo": linear(2048, 512)})
        norm = lambda: nn.RMSNorm(512)
        self.encoder = nn.ModuleList(nn.ModuleList([attention(), norm(), forward(), norm()]) for _ in range(6))
        self.decoder = nn.ModuleList(
            nn.ModuleList([attention(), norm(), attention(), norm(), forward(), norm()]) for _ in range(6)
        )
        self.norms = nn.ModuleList([norm(), norm()])
        self.relative_attention_bias = nn.ModuleList([nn.Embedding(32, 8), nn.Embedding(32, 8)])


TOTALS = {
    "16 / 256": ({nn.Embedding: Kronecker(256), nn.Linear: Kronecker(16)}, 4_059_648),
    "24 / 256": ({nn.Embedding: Kronecker(256), nn.Linear: Kronecker(24)}, 5_042_688),
    "16 / 256 padded": ({nn.Embedding: Kronecker(256, "padded"), nn.Linear: Kronecker(16, "padded")}, 4_167_936),
    "24 / 256 padded": ({nn.Embedding: Kronecker(256, "padded"), nn.Linear: Kronecker(24, "padded")}, 5_183_616),
    "PHM": ({nn.Embedding: None, nn.Linear: PHM(16)}, 19_612_160),
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_on_the_layers_of_t5_small(name):
    spec, total = TOTALS[name]
    with torch.device("meta"):
        model = T5Sized()
    model, report = compress(model, spec)
    assert report.before == 60_506_624
    assert report.after == total == sum(p.numel() for p in model.parameters())
    assert isinstance(model.relative_attention_bias[0], nn.Embedding)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOTALS)
def test_totals_on_hugging_face_s_t5_small(name):
    import transformers  # the extra `clients`, which `make test` installs

    spec, total = TOTALS[name]
    config = transformers.T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_decoder_layers=6, num_heads=8
    )
    # The name imports torch's compiler, which fails under a device in torch 2.6.
    make = transformers.T5ForConditionalGeneration
    with torch.device("meta"):
        model = make(config)
    _, report = compress(model, spec)
    assert (report.before, report.after) == (60_506_624, total)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [None, 8])
def test_hugging_face_s_t5_trains_and_generates(bits):
    import transformers  # the extra `clients`, which `make test` installs

    config = transformers.T5Config(
        vocab_size=200,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    model = transformers.T5ForConditionalGeneration(config)
    spec = {nn.Embedding: Kronecker(16), nn.Linear: Kronecker(4)}
    model, _ = compress(model, spec, min_parameters=1000)
    assert isinstance(model.lm_head, TiedOutput)
    assert model.lm_head.embedding is model.shared is model.encoder.embed_tokens is model.decoder.embed_tokens
    model = model if bits is None else lognet.wrap(model, bits=bits)
    optimizer = Madam(model.parameters(), lr=0.02)
    ids, losses = torch.randint(1, 200, (8, 5)), []
    for _ in range(40):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert model.eval().generate(input_ids=ids[:2], max_new_tokens=2).shape[0] == 2


class Everything(nn.Module):
    """One of each layer that is replaced, with a computation through all of them."""

    def __init__(self, bias=True):
        super().__init__()
        self.embedding = nn.Embedding(40, 16, padding_idx=3)
        self.attention = nn.MultiheadAttention(16, 4, bias=bias, batch_first=True)
        self.lstm = nn.LSTM(16, 12, num_layers=2, bias=bias, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(24, 16, bias=bias)
        self.output = nn.Linear(16, 40, bias=bias)
        self.output.weight = self.embedding.weight

    def forward(self, index):
        x = self.embedding(index)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.output(F.relu(self.linear(self.lstm(x)[0])))


INDEX = torch.tensor([[1, 2, 3, 39], [0, 5, 5, 7]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_full_rank_from_weights_is_exact(bias, dtype):
    model = Everything(bias).to(dtype)
    expected = model(INDEX)
    compressed, report = compress(copy.deepcopy(model), Kronecker(200), from_weights=True, min_parameters=0)
    kinds = [type(getattr(compressed, n)) for n in ("embedding", "attention", "lstm", "linear", "output")]
    assert kinds == [KroneckerEmbedding, KroneckerMultiheadAttention, KroneckerLSTM, KroneckerLinear, TiedOutput]
    assert compressed.output.embedding is compressed.embedding
    assert all(layer.error < 1e-6 for layer in report.layers)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(compressed(INDEX), expected, rtol=tolerance, atol=tolerance)
    compressed(INDEX).sum().backward()


@pytest.mark.parametrize("bias", [True, False])
def test_gru_from_weights_is_exact_where_the_rank_suffices(bias):
    gru = nn.GRU(6, 8, num_layers=2, bias=bias, batch_first=True, bidirectional=True).double()
    x, h = torch.randn(3, 5, 6, dtype=torch.float64), torch.randn(4, 3, 8, dtype=torch.float64)
    expected = gru(x, h)
    ours, report = compress(copy.deepcopy(gru), Kronecker(64), from_weights=True, min_parameters=0)
    assert isinstance(ours, KroneckerGRU)
    assert report.layers[0].error < 1e-12
    for a, b in zip(ours(x, h), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"layer \(the model\): n=4 must divide input_size=6"):
        compress(copy.deepcopy(gru), PHM(4), min_parameters=0)
    with pytest.raises(ValueError, match=r"layer 0: LowRank\(rank=2\) has no replacement for GRU"):
        compress(nn.Sequential(gru), {"0": LowRank(2)})


def test_projections_and_added_keys_are_taken_over():
    lstm = nn.LSTM(6, 8, 2, bidirectional=True, proj_size=4).double()
    attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True).double()
    x, y = torch.randn(5, 3, 6, dtype=torch.float64), torch.randn(5, 3, 8, dtype=torch.float64)
    exact = {"from_weights": True, "min_parameters": 0}
    ours, _ = compress(copy.deepcopy(lstm), Kronecker(64), **exact)
    torch.testing.assert_close(ours(x), lstm(x), rtol=1e-9, atol=1e-9)
    ours, _ = compress(copy.deepcopy(attention), Kronecker(64), **exact)
    torch.testing.assert_close(ours(y, y, y), attention(y, y, y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU])
def test_recurrent_layers_of_phm_take_over_biases(make):
    old = make(8, 12, bidirectional=True)
    new, report = compress(copy.deepcopy(old), PHM(4), min_parameters=0)
    assert isinstance(new, PHMGRU if make is nn.GRU else PHMLSTM)
    assert report.after == sum(p.numel() for p in new.parameters()) < report.before
    total = old.bias_ih_l0_reverse + old.bias_hh_l0_reverse
    if make is nn.GRU:
        assert torch.equal(new.bias_hh_l0_reverse, old.bias_hh_l0_reverse)
        total = old.bias_ih_l0_reverse
    assert torch.equal(new.bias_ih_l0_reverse, total)
    lognet.wrap(new, bits=8)(torch.randn(4, 2, 8))[0].sum().backward()


def test_low_rank_and_phm_from_weights():
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 16))
    x = torch.randn(3, 16)
    low, report = compress(copy.deepcopy(model), LowRank(8), from_weights=True, min_parameters=0)
    torch.testing.assert_close(low(x), model(x), rtol=1e-3, atol=1e-4)
    assert isinstance(low[0], LowRankLinear)
    with torch.no_grad():
        model[0].weight.copy_(PHMLinear(16, 8, 4).weight)
    phm, report = compress(copy.deepcopy(model), {"0": PHM(4), nn.Linear: None}, from_weights=True)
    torch.testing.assert_close(phm(x), model(x), rtol=1e-3, atol=1e-4)
    assert type(phm[2]) is nn.Linear
    assert report.layers[0].error < 1e-6


def test_reported_errors_are_the_least_possible():
    model = nn.Sequential(nn.Linear(16, 12), nn.MultiheadAttention(8, 2))
    w = model[0].weight.detach().clone()
    _, report = compress(copy.deepcopy(model), {"0": LowRank(3)}, from_weights=True)
    singular = torch.linalg.svdvals(w)
    assert report.layers[0].error == pytest.approx(float(singular[3:].norm() / singular.norm()), rel=1e-4)
    errors = [
        compress(copy.deepcopy(model), Kronecker(rank), from_weights=True, min_parameters=0)[1].layers[1].error
        for rank in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[0] < 1


@pytest.mark.parametrize("spec", [Kronecker(3), LowRank(5), PHM(4), Word2KetXS(2, 3)], ids=str)
def test_drawn_factors_have_the_old_size(spec):
    torch.manual_seed(0)
    model = nn.ModuleDict({"embedding": nn.Embedding(500, 64), "linear": nn.Linear(64, 256)})
    sizes = {"embedding": 0.02, "linear": 0.3}
    with torch.no_grad():
        for name, size in sizes.items():
            model[name].weight.normal_(std=size)
    bias = model["linear"].bias.detach().clone()
    model, report = compress(model, spec)
    for layer in report.layers:
        assert layer.error is None
        size = float(model[layer.names[0]].weight.detach().square().mean().sqrt())
        assert 0.5 < size / sizes[layer.names[0]] < 2
    assert torch.equal(model["linear"].bias, bias)


def test_all_layers_from_scratch_then_bits():
    for spec in (Kronecker(2), {nn.Embedding: Word2KetXS(2, 2), "*": PHM(2)}):
        model, report = compress(Everything(), spec, min_parameters=0)
        assert report.after < report.before
        assert report.after == sum(p.numel() for p in model.parameters())
        names = {name for layer in report.layers for name in layer.names}
        assert {"embedding", "output", "attention", "lstm", "linear"} == names
        lognet.wrap(model, bits=8)
        assert all(isinstance(p, LogTensor) for p in model.parameters())
        model(INDEX).sum().backward()
    assert isinstance(model.embedding, Word2KetXSEmbedding)
    assert isinstance(model.attention, PHMMultiheadAttention)


def test_patterns_classes_and_sizes():
    make = lambda: nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(8, 8))
    model, _ = compress(make(), Kronecker(2))
    assert [type(m) for m in model] == [KroneckerLinear, KroneckerLinear, nn.Linear]  # the last is small
    model, _ = compress(make(), {"2": Kronecker(2), "1": None, nn.Linear: PHM(4)})
    assert [type(m) for m in model] == [PHMLinear, nn.Linear, KroneckerLinear]
    single, report = compress(nn.Linear(64, 64), Kronecker(2))
    assert isinstance(single, KroneckerLinear)
    assert report.layers[0].names == ("",)


def test_why_layers_are_kept():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(8, 8), nn.Embedding(500, 64), nn.LSTM(64, 64))
    _, report = compress(model, {"0": None, nn.Linear: PHM(4), nn.LSTM: LowRank(2)}, exclude="1")
    assert report.layers == []
    assert report.kept == {
        "0": "spec says None for 0",
        "1": "excluded",
        "2": "its weight has 64 numbers, fewer than min_parameters=4,096",
        "3": "no pattern of spec matches it",
        "4": "LowRank(rank=2) has no replacement for LSTM",
    }
    assert "kept 1: excluded" in str(report)


def test_modes_dtypes_and_devices_are_kept():
    model = nn.Sequential(nn.Linear(64, 64, dtype=torch.float64)).eval()
    compress(model, Kronecker(2))
    assert model[0].A.dtype == torch.float64
    assert not model[0].training


def test_torch_s_transformers_run_after_it():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 2)
    model, _ = compress(copy.deepcopy(encoder), Kronecker(256), from_weights=True, min_parameters=0)
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    for training in (True, False):
        expected = encoder.train(training)(x, src_key_padding_mask=padding)
        with torch.no_grad():
            ours = model.train(training)(x, src_key_padding_mask=padding)
        torch.testing.assert_close(ours[~padding], expected[~padding], rtol=1e-3, atol=1e-4)


def test_report():
    _, report = compress(Everything(), Kronecker(4), from_weights=True, min_parameters=0)
    text = str(report)
    assert "embedding = output  KroneckerEmbedding" in text
    assert text.splitlines()[-1].split()[:2] == ["the", "model"]
    assert f"{report.after:,}" in text


def test_errors_change_nothing():
    model = Everything()
    state = copy.deepcopy(model.state_dict())

    def unchanged():
        return type(model.linear) is nn.Linear and all(
            torch.equal(v, state[name]) for name, v in model.state_dict().items()
        )

    with pytest.raises(
        ValueError, match="spec: 'decoder' matches no layer; the model has embedding, output, attention"
    ):
        compress(model, {"linear": Kronecker(2), "decoder": Kronecker(2)})
    with pytest.raises(ValueError, match="layer attention: n=5 must divide embed_dim=16"):
        compress(model, {"linear": Kronecker(2), "attention": PHM(5)})
    with pytest.raises(ValueError, match=r"layer lstm: LowRank\(rank=2\) has no replacement for LSTM"):
        compress(model, {"lstm": LowRank(2)})
    with pytest.raises(ValueError, match="fit_ needs order=2"):
        compress(model, {"linear": Kronecker(2), "embedding": Word2KetXS(3, 2)}, from_weights=True)
    with pytest.raises(TypeError, match="spec takes Kronecker, PHM, LowRank, Word2KetXS or None, got 16"):
        compress(model, {"linear": 16})
    with pytest.raises(TypeError, match="spec takes fnmatch patterns"):
        compress(model, {3: Kronecker(2)})
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        compress(model, Kronecker(0), min_parameters=0)
    assert unchanged()


def test_what_would_be_lost_is_refused():
    make = lambda: nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64))
    for spec in (Kronecker, None, 16):
        with pytest.raises(TypeError, match="spec takes Kronecker, PHM, LowRank, Word2KetXS"):
            compress(make(), spec)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        compress("model", Kronecker(2))
    with pytest.raises(ValueError, match="layer 0: weight is a LogTensor; compress before lognet.wrap"):
        compress(lognet.wrap(make()), Kronecker(2))
    model = make()
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer 1: weight must be finite"):
        compress(model, Kronecker(2), from_weights=True)
    assert type(model[0]) is nn.Embedding
    for options in ({"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}):
        with pytest.raises(ValueError, match=f"an embedding with {next(iter(options))}="):
            compress(nn.Embedding(100, 64, **options), Kronecker(2))


def test_frozen_layers_stay_frozen():
    model = nn.Sequential(nn.Linear(64, 64).requires_grad_(False), nn.Linear(64, 64))
    compress(model, Kronecker(2))
    assert [p.requires_grad for p in model.parameters()] == [False] * 3 + [True] * 3
