"""Every recipe of examples/paper on tiny samples; and as processes of their own: killed, resumed, and two together."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import lognet  # noqa: F401 (checkpoints hold LogTensors)

pytestmark = pytest.mark.timeout(600)  # several processes each: a loaded machine may take long
ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "examples" / "paper"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
QUIET = ("-W", "error", "-W", "ignore::DeprecationWarning")


def command(recipe, out, *options):
    return [sys.executable, *QUIET, str(RECIPES / f"{recipe}.py"), "--out", str(out), "--tiny", *map(str, options)]


def run(arguments):
    return subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True)


def log(out):
    """The records, without what depends on the clock."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


# Recipe, data, options, and what the row must say: one configuration each, their contenders spread over them.
RUNS = [
    ("madam_cifar", "cifar-100-python", "--classes 100 --bits 8 --limit-steps 2", "33.9 ± 1.1"),
    ("madam_imagenet", "imagenet", "--bits 12", "31.1 ± 0.1"),
    ("madam_cgan", "cifar-10-batches-py", "--optimizer adam", "23.9 ± 0.9"),
    ("madam_wikitext2", "wikitext-2", "--bits 10 --limit-steps 3", "218 ± 0.6"),
    ("algebra_cifar", "cifar-10-batches-py", "--algebra H --norm whitening --limit-steps 2", "94.1"),
    ("algebra_imagenet", "imagenet", "--amp bf16", "does not report this run"),
    ("phm_iwslt", "iwslt14", "--n 4 --bits 8 --optimizer madam", "35.53"),
    ("shapeshifter_iwslt", "iwslt14", "--form shapeshifter", "36.36"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("recipe", "data", "options", "figure"), RUNS, ids=[recipe for recipe, *_ in RUNS])
def test_a_recipe_prints_its_row(samples, inception, tmp_path, monkeypatch, capsys, recipe, data, options, figure):
    """In this process, because the imports of one of its own take longer than the recipe; the tests below start those."""
    more = ["--inception", inception] if recipe == "madam_cgan" else []
    arguments = command(recipe, tmp_path, "--data", samples / data, *options.split(), *more)[1 + len(QUIET) :]
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(arguments[0], run_name="__main__")
    out = capsys.readouterr().out
    paper, here = out.splitlines()[1:3]
    assert paper.startswith(f"  paper  {figure}")
    result = json.loads((tmp_path / "result.json").read_text())
    assert here.startswith(f"  here   {result['here']:.4g}  (")
    assert "not to be compared" in out
    assert result["steps"] == log(tmp_path)[-1]["step"] > 0
    assert log(tmp_path)[-1][result["metric"]] == pytest.approx(result["here"])
    assert (result["paper"] is None) == (figure == "does not report this run")


def killed(arguments, out, step):
    """Run until the log has that step, then kill -9."""
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = out / "log.jsonl"
    try:
        while process.poll() is None and not (lines.exists() and f'"step": {step},' in lines.read_text()):
            time.sleep(0.005)
        assert process.poll() is None, process.stdout.read()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def assert_resumes(recipe, tmp_path, options, at):
    options = [*options, "--log-every", 1, "--save-every", 3]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = run(command(recipe, whole, *options))
    assert unbroken.returncode == 0, unbroken.stderr
    killed(command(recipe, broken, *options), broken, at)
    with (broken / "log.jsonl").open("a") as file:
        file.write('{"step": 9')  # cut off in a record
    (broken / ".checkpoint.pt.tmp").write_bytes(b"cut off in a checkpoint")
    done = run(command(recipe, broken, *options))
    assert done.stdout.startswith("resumed at step"), done.stderr
    assert done.stdout.splitlines()[1:] == unbroken.stdout.splitlines()
    assert log(broken) == log(whole)
    results = [json.loads((out / "result.json").read_text()) for out in (whole, broken)]
    assert results[0] == results[1]
    states = [torch.load(out / "checkpoint.pt", weights_only=True) for out in (whole, broken)]
    for state in states:
        state.pop("seconds")
    assert_same(*states)
    return unbroken.stdout


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_a_killed_run_goes_on_as_if_it_had_not_been(samples, tmp_path):
    """With dropout, Transformer-XL's memory, rounding at random, 8-bit weights: all that a step leaves for the next."""
    options = ["--data", samples / "enwik8", "--optimizer", "madam", "--bits", 8, "--steps", 14, "--eval-every", 5]
    row = assert_resumes("algebra_enwik8", tmp_path, options, at=8)
    assert "  paper  0.99  (Hoffmann et al. 2020 (AlgebraNets), Table 2)" in row


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "data", "options"),
    [
        ("madam_cifar", "cifar-10-batches-py", "--bits 10 --patience 1 --epochs 3"),
        ("madam_cgan", "cifar-10-batches-py", "--bits 12 --steps 20 --eval-every 5"),
        ("madam_imagenet", "imagenet", "--optimizer sgd --epochs 10 --workers 2"),
        ("madam_wikitext2", "wikitext-2", "--epochs 4"),
        ("algebra_wikitext103", "wikitext-103", "--steps 24 --bits 12 --optimizer madam-paper"),
        ("phm_iwslt", "iwslt14", "--steps 20 --eval-every 7"),
        ("shapeshifter_iwslt", "iwslt14", "--steps 20 --bits 8 --optimizer madam"),
    ],
)
def test_any_killed_run_goes_on(samples, tmp_path, recipe, data, options):
    assert_resumes(recipe, tmp_path, ["--data", samples / data, *options.split()], at=11)


@pytest.mark.parametrize("bits", [pytest.param("none", marks=pytest.mark.slow), "8"])
def test_two_processes_train_as_one(samples, tmp_path, bits):
    """No dropout and no batch norm here: the mean of two halves' gradients is the whole's."""
    options = ["--data", samples / "wikitext-103", "--optimizer", "madam", "--bits", bits, "--lr", "0.05"]
    alone = run(command("algebra_wikitext103", tmp_path / "one", *options))
    assert alone.returncode == 0, alone.stderr
    assert "  paper  does not report this run" in alone.stdout
    recipe = command("algebra_wikitext103", tmp_path / "two", *options)
    launcher = [sys.executable, *QUIET, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run([*launcher, *recipe[1 + len(QUIET) :]])
    assert done.returncode == 0, done.stderr
    for one, two in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
