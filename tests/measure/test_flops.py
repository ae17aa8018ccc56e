"""Multiply-adds against the paper's table and against counts by hand."""

import pytest
import torch

from lognet import flops, nn

# multiply-adds as a share of a real layer's at the same real width (Table 1: multiplies / A^2)
RATIO = {"R": 1, "C": 1, "H": 1, "M2R": 1 / 2, "M3R": 1 / 3, "M4R": 1 / 4, "M2C": 1 / 2, "D2": 1 / 2, "D4": 1 / 4}


@pytest.mark.parametrize("name", RATIO)
@pytest.mark.parametrize("bits", [None, 8])
def test_ratios_of_the_table(name, bits):
    d = 144
    options = {"algebra": name, "bits": bits}
    x, sequence, image = torch.ones(2, d), torch.ones(5, 2, d), torch.ones(2, d, 6, 6)
    for ours, theirs, inputs in (
        (nn.AlgebraLinear(d, d, **options), torch.nn.Linear(d, d), x),
        (nn.AlgebraConv2d(d, d, 3, 2, 1, **options), torch.nn.Conv2d(d, d, 3, 2, 1), image),
        (nn.AlgebraConvTranspose2d(d, d, 3, 2, **options), torch.nn.ConvTranspose2d(d, d, 3, 2), image),
        (nn.AlgebraGRU(d, d, 2, **options), torch.nn.GRU(d, d, 2), sequence),
        (nn.AlgebraLSTMCell(d, d, **options), torch.nn.LSTMCell(d, d), x),
    ):
        assert flops(ours, inputs).total == flops(theirs, inputs).total * RATIO[name]


def test_counts_by_hand():
    assert flops(torch.nn.Linear(3, 5), torch.ones(2, 7, 3)).total == 2 * 7 * 15
    assert flops(torch.nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.ones(1, 4, 5, 5)).total == 25 * 6 * 2 * 9
    assert flops(torch.nn.ConvTranspose1d(4, 6, 3), torch.ones(1, 4, 5)).total == 5 * 4 * 6 * 3
    assert flops(torch.nn.LSTM(3, 5), torch.ones(2, 1, 3)).total == 2 * 4 * 5 * (3 + 5)
    assert flops(nn.AlgebraWhitening(8, algebra="H"), torch.ones(3, 8)).total == 3 * 8 * 4
    x = torch.ones(5, 3, 16)
    for attention, projections in (
        (torch.nn.MultiheadAttention(16, 2), 4 * 15 * 16 * 16),
        (nn.AlgebraMultiheadAttention(16, 2, algebra="M2R"), 4 * 15 * 16 * 16 // 2),
    ):
        counted = flops(attention, x, x, value=x)
        assert counted.total == projections + 2 * 3 * 5 * 5 * 16
        assert list(counted.by_module) == ["(the model)"]


def test_factored_layers_by_hand():
    x, built, contracted = torch.ones(5, 3, 16), {"impl": "materialize"}, {"impl": "contract"}
    assert flops(nn.PHMLinear(16, 8, n=4, **built), x).total == 4 * 128 + 15 * 128
    assert flops(nn.PHMLinear(16, 8, n=1), x).total == 15 * 128
    low_rank = nn.LowRankLinear(16, 8, rank=3, bits=8, **contracted)
    assert flops(low_rank, x).total == 15 * 3 * (16 + 8)
    assert flops(nn.PHMConv2d(8, 12, 3, n=4, padding=1), torch.ones(2, 8, 5, 5)).total == 864 * (2 * 25 + 4)
    gru = nn.PHMGRU(16, 8, n=4, bidirectional=True, **built)
    assert flops(gru, x).total == 2 * 3 * (4 + 15) * (16 * 8 + 8 * 8)
    attention = nn.KroneckerMultiheadAttention(16, 2, rank=2, **built)
    assert flops(attention, x, x, x).total == 4 * (2 + 15) * 16 * 16 + 2 * 3 * 5 * 5 * 16
    embedding = nn.Word2KetXSEmbedding(64, 16, order=2, rank=3, **built)
    assert flops(nn.TiedOutput(embedding), x).total == (3 + 15) * 64 * 16
    assert flops(nn.TiedOutput(nn.Word2KetEmbedding(64, 16, order=2, rank=3)), x).total == 15 * 64 * 16


def test_counts_every_call_and_leaves_the_model_alone():
    layer = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), layer, torch.nn.BatchNorm1d(4), torch.nn.Dropout())
    model[3].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    counted = flops(model, torch.ones(3, 4))
    assert (counted.total, counted.by_module) == (2 * 3 * 16, {"0": 96})
    assert str(counted).splitlines()[-1].split() == ["96", "in", "all"]
    assert [m.training for m in model] == [True, True, True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not layer._forward_hooks
    with pytest.raises(RuntimeError):
        flops(model, torch.ones(3, 5))
    assert not layer._forward_hooks
