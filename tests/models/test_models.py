"""The paper's models: sizes where the paper gives them, causality, memory, and training with few-bit weights."""

import pytest
import torch

import lognet
from lognet import LogTensor, flops
from lognet.models import CharGRU, CifarResNet, MobileNetV1, ResNet, TransformerXL
from lognet.optim import Madam


def size(model):
    return sum(p.numel() for p in model.parameters())


# Table 6: parameters in millions
@pytest.mark.parametrize(("algebra", "millions"), [("R", 3.64), ("C", 1.85), ("M2R", 0.94), ("H", 0.94)])
def test_cifar_resnet_has_the_papers_parameters(algebra, millions):
    assert size(CifarResNet(algebra, device="meta")) == pytest.approx(millions * 1e6, rel=0.02)


def test_known_real_sizes():
    assert size(ResNet(50, "R", device="meta")) == 25_557_032  # the counts of He et al.'s and Howard et al.'s models
    assert size(ResNet(18, "R", device="meta")) == 11_689_512
    assert size(MobileNetV1("R", device="meta")) == 4_231_976


@pytest.mark.parametrize(("name", "share"), [("C", 1 / 2), ("H", 1 / 4), ("M2R", 1 / 4), ("M2C", 1 / 8)])
def test_algebra_models_have_that_share_of_the_parameters(name, share):
    convs = lambda model: sum(p.numel() for p in model.blocks.parameters() if p.dim() > 3)
    assert convs(ResNet(50, name, device="meta")) == convs(ResNet(50, "R", device="meta")) * share


def test_transformer_sizes():
    real = size(TransformerXL("R", vocabulary=205, device="meta"))
    ours = size(TransformerXL("M2R", vocabulary=205, device="meta"))
    assert real == pytest.approx(69.4e6, rel=0.02)  # Table 2
    deep = size(TransformerXL("M2R", vocabulary=205, layers=42, device="meta"))
    assert deep == pytest.approx(31.2e6, rel=0.03)
    assert ours < real / 3.8


@pytest.mark.parametrize("algebra", ["R", "C", "H", "M2R", "M2C", "D4"])
@pytest.mark.parametrize("bits", [None, 8])
def test_every_model_trains_with_few_bits(algebra, bits):
    options = {"algebra": algebra, "bits": bits}
    image = torch.randn(4, 3, 16, 16)
    text = torch.randint(10, (4, 3))
    models = [
        (CifarResNet(width=16, blocks=(1, 1), norm="whitening" if algebra == "C" else "batch", **options), image),
        (ResNet(18, width=0.125, num_classes=5, **options), image),
        (MobileNetV1(width=0.25, num_classes=5, **options), image),
        (CharGRU(hidden_size=16, vocabulary=10, **options), text),
        (TransformerXL(vocabulary=10, width=16, layers=2, heads=2, feed_forward=32, memory=4, **options), text),
    ]
    for model, x in models:
        out = model(x)
        out = out[0] if isinstance(out, tuple) else out
        out.square().mean().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        Madam(model.parameters(), lr=0.01).step()
        wide = [p for p in model.parameters() if isinstance(p, LogTensor)]
        assert bool(wide) == (bits == 8)
        assert all(isinstance(p, LogTensor) for p in lognet.wrap(model).parameters()) if bits is None else True


@pytest.mark.parametrize("algebra", ["M3R", "M4R", "D3"])
def test_every_model_has_default_widths_for_every_algebra(algebra):
    for make in (CifarResNet, ResNet, MobileNetV1, CharGRU, TransformerXL):
        assert size(make(algebra=algebra, device="meta")) > 0
    assert CifarResNet(algebra, device="meta").stem[-1].out_channels == {"M3R": 126, "M4R": 128, "D3": 129}[algebra]
    model = TransformerXL("M3R", vocabulary=10, width=18, layers=1, heads=2, feed_forward=18)
    assert model(torch.zeros(1, 3, dtype=torch.long))[0].shape == (1, 3, 10)


def test_transformer_memory_stands_for_the_past():
    torch.manual_seed(1)
    model = TransformerXL("M2R", vocabulary=10, width=16, layers=1, heads=2, feed_forward=32, memory=8).eval()
    text = torch.randint(10, (2, 8))
    whole, _ = model(text)
    first, memory = model(text[:, :4])
    second, memory = model(text[:, 4:], memory)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-5)
    assert memory.shape == (1, 2, 8, 16)
    assert not memory.requires_grad


def test_transformer_is_causal():
    model = TransformerXL("H", vocabulary=10, width=16, layers=2, heads=2, feed_forward=32).eval()
    text = torch.randint(10, (1, 6))
    other = text.clone()
    other[0, 4] = (other[0, 4] + 1) % 10
    a, b = model(text)[0], model(other)[0]
    assert torch.equal(a[:, :4], b[:, :4])
    assert not torch.equal(a[:, 4], b[:, 4])


def test_cost_of_the_models():
    image = torch.ones(1, 3, 32, 32)
    real, ours = (flops(CifarResNet(name, width=32), image) for name in ("R", "M2R"))
    convs = lambda counted: sum(n for name, n in counted.by_module.items() if name.startswith("stages"))
    assert convs(ours) == convs(real) / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(34), "depth must be one of 18, 50"),
        (lambda: CifarResNet(norm="layer"), "norm must be one of 'batch', 'whitening'"),
        (lambda: CifarResNet(activation="tanh"), "activation must be one of 'relu', 'swish'"),
        (lambda: ResNet(18, width=0), "width must be positive"),
        (lambda: MobileNetV1(width=-1.0), "width must be positive"),
        (lambda: CharGRU("H", 16, layers=-1), "layers must be at least 0, got -1"),
        (
            lambda: TransformerXL("H", 10, 16, 1, 2, feed_forward=16)(
                torch.zeros(2, 3).long(), torch.ones(1, 3, 2, 16)
            ),
            r"memory must be \(layers, batch, past, width\), \(1, 2, 2, 16\) here, got \(1, 3, 2, 16\)",
        ),
        (lambda: CharGRU("H", hidden_size=6), "^hidden_size=6 must be a positive multiple of 4, .* nearest is 8"),
        (lambda: TransformerXL("H", width=6), "^width=6 must be a positive multiple of 4, .* nearest is 8"),
        (lambda: TransformerXL("H", feed_forward=6), "^feed_forward=6 must be a positive multiple of 4"),
        (lambda: TransformerXL("H", head_width=6), "^head_width=6 must be a positive multiple of 4"),
        (lambda: TransformerXL("H", heads=0), "^heads must be at least 1, got 0"),
        (lambda: CifarResNet("M3R", width=128), "^width=128 must be a positive multiple of 9, .* nearest is 126"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
