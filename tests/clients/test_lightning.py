"""Lightning: `Trainer.fit` with automatic optimization by Madam, checkpoints, accumulation and clipping, at 8 bits."""

import pytest
import pytorch_lightning as lightning
import torch
from oracles.same import assert_same, assert_same_dicts
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lognet
from clients.curves import assert_tracks
from lognet import LogTensor
from lognet.optim import Madam

pytestmark = [  # Lightning's own
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

digits = load_digits()
IMAGES, LABELS = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1, torch.tensor(digits.target)


class Digits(lightning.LightningModule):
    def __init__(self, bits):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        if bits is not None:
            lognet.wrap(self.net, bits=bits)
        self.losses = []

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = Madam(self.parameters(), lr=0.1, warmup=10)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)}


def fit(bits, folder, resume=None, epochs=2, **options):
    model = Digits(bits)
    checkpoints = lightning.callbacks.ModelCheckpoint(dirpath=folder, filename="{epoch}", save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[checkpoints], **options,
    )  # fmt: skip
    train = DataLoader(TensorDataset(IMAGES[:1280], LABELS[:1280]), batch_size=64)
    validate = DataLoader(TensorDataset(IMAGES[1280:], LABELS[1280:]), batch_size=256)
    trainer.fit(model, train, validate, ckpt_path=resume)
    return model, trainer


OPTIONS = [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}, {"precision": "bf16-mixed"}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "accumulated-clipped", "bf16"])
def test_fit_tracks_float32_and_resumes_bit_for_bit(options, tmp_path):
    reference, _ = fit(None, tmp_path / "float", **options)
    model, trainer = fit(8, tmp_path / "log", **options)
    assert all(isinstance(p, LogTensor) for p in model.parameters())
    assert_tracks(model.losses, reference.losses, falls_by=0.3, within=0.05)
    assert trainer.callback_metrics["accuracy"] > 0.7

    resumed, again = fit(8, tmp_path / "again", resume=tmp_path / "log" / "epoch=0.ckpt", **options)
    assert resumed.losses == model.losses[20:]
    for a, b in zip(resumed.parameters(), model.parameters(), strict=True):
        assert_same(a, b)
    assert_same_dicts(again.optimizers[0].state_dict()["state"], trainer.optimizers[0].state_dict()["state"])


@pytest.mark.parametrize("bits", [8, None], ids=["wrapped", "float"])
def test_a_checkpoint_loads_into_a_wrapped_or_a_float_model(bits, tmp_path):
    model, _ = fit(8, tmp_path, epochs=1)
    loaded = Digits.load_from_checkpoint(
        tmp_path / "epoch=0.ckpt", bits=bits
    )  # by a function as map_location: its default
    for a, b in zip(loaded.parameters(), model.parameters(), strict=True):
        assert isinstance(a, LogTensor) == (bits is not None)
        assert torch.equal(a, b)
