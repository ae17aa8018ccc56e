"""Accelerate: `prepare`, `accumulate`, mixed precision, clipping, `save_state` and `load_state`, at 8 bits."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from oracles.same import assert_same, assert_same_dicts
from torch.utils.data import DataLoader

import lognet
from clients.curves import assert_tracks
from clients.language import make, samples
from lognet.optim import Madam

BATCH = 16


def train(kind, bits, updates, *, precision="no", floats=True, save_at=None, load=None, folder=None, **save_options):
    """Losses of all batches, the model, the optimizer. Two batches make an update."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one; here each run is a process of its own
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    model = make(kind, bits)
    if bits is not None and floats:
        lognet.float_state_dicts(model)
    optimizer = Madam(model.parameters(), lr=0.1, warmup=5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, updates)
    batches = DataLoader(samples(kind, 2 * updates * BATCH), batch_size=BATCH)
    model, optimizer, batches, schedule = accelerator.prepare(model, optimizer, batches, schedule)
    done = 0
    if load is not None:
        accelerator.load_state(load)
        done = 2 * save_at
        batches = accelerator.skip_first_batches(batches, done)
    losses = []
    for batch in batches:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if folder is not None and len(losses) == 2 * save_at:
            accelerator.save_state(folder, **save_options)
    return losses, accelerator.unwrap_model(model), optimizer


@pytest.mark.parametrize(("kind", "precision", "updates"), [("gpt2", "no", 16), ("bert", "no", 16), ("t5", "bf16", 12)])
def test_8_bits_track_float32(kind, precision, updates):
    curves = [train(kind, bits, updates, precision=precision)[0] for bits in (8, None)]
    assert_tracks(*curves, falls_by=0.2, within=0.05)


@pytest.mark.parametrize(
    "options", [{}, {"floats": False, "safe_serialization": False}], ids=["safetensors", "torch.save"]
)
def test_a_state_resumes_bit_for_bit(options, tmp_path):
    straight = train("gpt2", 8, 4, save_at=2, folder=tmp_path, **options)
    resumed = train("gpt2", 8, 4, save_at=2, load=tmp_path, floats=options.get("floats", True))
    assert resumed[0] == straight[0][4:]
    for a, b in zip(resumed[1].parameters(), straight[1].parameters(), strict=True):
        assert_same(a, b)
    assert_same_dicts(resumed[2].state_dict()["state"], straight[2].state_dict()["state"])


def test_a_state_that_safetensors_cannot_write_names_the_remedy(tmp_path):
    with pytest.raises(RuntimeError, match=r"lognet\.float_state_dicts\(model\)"):
        train("gpt2", 8, 1, save_at=1, folder=tmp_path, floats=False)
