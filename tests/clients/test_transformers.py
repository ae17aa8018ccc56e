"""Hugging Face transformers: GPT-2, BERT and T5 in 8 bits, trained by `Trainer`, checkpointed, generating."""

import pytest
import torch
import transformers
from oracles.same import assert_same, assert_same_dicts
from safetensors.torch import load_model, save_file, save_model
from transformers import Trainer, TrainingArguments

import lognet
from clients.curves import assert_tracks
from clients.language import MODELS, make, samples, sentences, task
from lognet import LogTensor
from lognet.optim import Madam

BATCH = 32
NEW_NAME = hasattr(transformers.PreTrainedModel, "activation_checkpointing_enable")  # of gradient checkpointing


def trainer(kind, bits, folder, steps, **arguments):
    """A `Trainer` on Madam, at a constant rate after a short warm-up of Madam's own."""
    model = make(kind, bits)
    if bits is not None:
        lognet.float_state_dicts(model)
    optimizer = Madam(model.parameters(), lr=0.1, warmup=10)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    options = {"save_strategy": "no", "logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=BATCH, seed=0, **(options | arguments)
        ),
        train_dataset=samples(kind, 16 * BATCH),
        optimizers=(optimizer, schedule),
    )


def losses(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def assert_same_training(one, other):
    """Weights and the optimizer's state, to the bit."""
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert isinstance(a, LogTensor)
        assert_same(a, b)
    assert_same_dicts(one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"])


@pytest.mark.parametrize(("kind", "steps"), [("gpt2", 30), ("bert", 40), ("t5", 30)])
def test_trainer_at_8_bits_tracks_float32(kind, steps, tmp_path):
    curves = {}
    for bits in (None, 8):
        run = trainer(kind, bits, tmp_path, steps)
        run.train()
        curves[bits] = losses(run)
        assert all(isinstance(p, LogTensor) for p in run.model.parameters()) == (bits == 8)
    assert_tracks(curves[8], curves[None], falls_by=0.4, within=0.05)


@pytest.mark.parametrize("kind", list(MODELS))
def test_trainer_resumes_bit_for_bit(kind, tmp_path):
    straight = trainer(kind, 8, tmp_path, 4, save_strategy="steps", save_steps=2)
    straight.train()
    resumed = trainer(kind, 8, tmp_path, 4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(resumed) == losses(straight)
    assert_same_training(resumed, straight)
    # The folder is a float checkpoint too, for people without lognet.
    floats = type(straight.model).from_pretrained(tmp_path / "checkpoint-4")
    assert_same_dicts(floats.state_dict(), straight.model.state_dict())


def test_trainer_with_accumulation_bf16_and_gradient_checkpointing(tmp_path):
    curves = {}
    options = {"bf16": True, "gradient_accumulation_steps": 2}
    options["activation_checkpointing" if NEW_NAME else "gradient_checkpointing"] = True
    for bits in (None, 8):
        run = trainer("gpt2", bits, tmp_path, 12, **options)
        run.train()
        curves[bits] = losses(run)
    assert_tracks(curves[8], curves[None], falls_by=0.1, within=0.05)


@pytest.mark.parametrize("kind", list(MODELS))
def test_gradient_checkpointing_changes_no_gradient(kind):
    gradients = []
    for checkpointing in (False, True):
        model = make(kind, 8)
        if checkpointing:
            (model.activation_checkpointing_enable if NEW_NAME else model.gradient_checkpointing_enable)()
            assert model.is_gradient_checkpointing
        model.train()
        model(**task(kind, 4)).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert_same(plain, recomputed)


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_pretrained_folder_there_and_back(kind, tmp_path):
    """save_pretrained, from_pretrained, wrap, and out again as floats that anyone can load."""
    make(kind, None).save_pretrained(tmp_path / "float")
    loaded = transformers.AutoModelForMaskedLM if kind == "bert" else type(make(kind, None))
    model = lognet.wrap(loaded.from_pretrained(tmp_path / "float"), bits=8)
    for a, b in zip(model.parameters(), make(kind, 8).parameters(), strict=True):
        assert_same(a, b)
    with lognet.float_state_dicts(model):
        model.save_pretrained(tmp_path / "decoded")
    lognet.save(model, tmp_path / "packed.safetensors")
    decoded = type(model).from_pretrained(tmp_path / "decoded")
    assert_same_dicts(decoded.state_dict(), lognet.unwrap(model).state_dict())
    again = lognet.load(make(kind, 8), tmp_path / "packed.safetensors")
    for a, b in zip(lognet.unwrap(again).parameters(), model.parameters(), strict=True):
        assert_same(a, b)


def test_what_safetensors_cannot_write_names_the_remedy(tmp_path):
    model = make("gpt2", 8)
    remedy = r"lognet\.float_state_dicts\(model\).*lognet\.save\(model, path\)"
    for save in (
        lambda: model.save_pretrained(tmp_path / "folder"),
        lambda: save_model(model, tmp_path / "file"),
        lambda: save_file(model.state_dict(), tmp_path / "file"),
    ):
        with pytest.raises(RuntimeError, match=remedy):
            save()
    assert not (tmp_path / "file").exists()
    with lognet.float_state_dicts(model):
        save_model(model, str(tmp_path / "file"))
    other = make("gpt2", None, seed=1)
    load_model(other, str(tmp_path / "file"))
    assert_same_dicts(other.state_dict(), lognet.unwrap(model).state_dict())


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}], ids=["greedy", "beams", "sampled"]
)
def test_generate_says_what_the_unwrapped_model_says(kind, how):
    model = make(kind, 8).eval()
    prompt = sentences(2)[:, :4]
    told = []
    for _ in range(2):
        torch.manual_seed(1)
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, pad_token_id=0, **how)
        told.append(ids)
        if how.get("num_beams") is None:
            assert ids.shape[1] > 2
        if any(isinstance(p, LogTensor) for p in model.parameters()):
            lognet.unwrap(model)
    assert torch.equal(*told)
