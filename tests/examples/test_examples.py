"""The small examples do what they say, in seconds."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ("replace_optimizer", "wrap_model", "compress_model", "resume")


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SMALL)
def test_it_is_small_and_says_how_to_run_it(name):
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert f"``python examples/{name}.py``" in text
    assert "lognet._" not in text


def test_replace_optimizer():
    example = load("replace_optimizer")
    assert example.train(example.Madam) > 0.9


def test_wrap_model():
    example = load("wrap_model")
    model, _, accuracy = example.train()
    assert accuracy > 0.85
    widths = {name: p.bits for name, p in model.named_parameters() if isinstance(p, example.lognet.LogTensor)}
    assert widths == {"0.weight": 8, "0.bias": 8, "5.weight": 12, "5.bias": 12}


def test_compress_model():
    (before, large), (after, small) = load("compress_model").main()
    assert small < large / 10
    assert before > 0.8
    assert after > 0.8


def test_resume(tmp_path):
    assert load("resume").main(tmp_path)
