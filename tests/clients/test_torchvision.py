"""torchvision: ResNet-18 and MobileNets (depthwise convolutions, batch norm, squeeze and excitation) at 8 bits."""

import pytest
import torch
from oracles.same import assert_same_dicts
from torch.nn.functional import cross_entropy

import lognet
from clients.curves import assert_tracks
from clients.vision import images, import_torchvision
from lognet import LogTensor
from lognet.optim import Madam

models = import_torchvision().models
MAKE = {
    "resnet18": lambda: models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=10, width_mult=0.5, dropout=0.0),
}
IMAGES, LABELS = images()


def train(name, bits, steps, lr=0.03):
    """Both start from weights on the ladder: batch norm over small batches makes two runs part that start half a rung apart."""
    torch.manual_seed(0)
    model = lognet.wrap(MAKE[name](), bits=8)
    if bits is None:
        lognet.unwrap(model)
    optimizer = Madam(model.parameters(), lr=lr, warmup=10)
    draws = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        batch = torch.randint(1500, (32,), generator=draws)
        loss = cross_entropy(model(IMAGES[batch]), LABELS[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize(
    ("name", "steps", "falls_by"),
    [
        pytest.param("mobilenet_v3_small", 12, 0.02),
        pytest.param("mobilenet_v3_small", 30, 0.2, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("resnet18", 20, 0.2, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_8_bits_track_float32(name, steps, falls_by):
    curves = [train(name, bits, steps)[0] for bits in (8, None)]
    assert_tracks(*curves, falls_by, within=0.2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(MAKE))
def test_a_step_then_evaluation_files_and_floats(name, tmp_path):
    """Batch norm's buffers stay float; what is saved is loaded to the bit; unwrapped, it says the same but for roundings."""
    model = train(name, 8, 1)[1].eval()
    assert all(isinstance(p, LogTensor) for p in model.parameters())
    assert not any(isinstance(b, LogTensor) for b in model.buffers())
    with torch.no_grad():
        told = model(IMAGES[:8])
    lognet.save(model, tmp_path / "model.safetensors")
    other = lognet.load(lognet.wrap(MAKE[name](), bits=8), tmp_path / "model.safetensors").eval()
    assert_same_dicts(other.state_dict(), model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(IMAGES[:8]), told)
        torch.testing.assert_close(lognet.unwrap(model)(IMAGES[:8]), told)
