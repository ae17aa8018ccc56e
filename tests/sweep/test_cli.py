"""The command line's flags and errors, and what a finished sweep leaves behind."""

import csv
import json
import shutil
import sys

import pytest

from lognet.__main__ import main as lognet_main
from lognet.sweep.cli import main

from .conftest import STEPS, TINY, document, sweep


def refused(capsys, *words):
    """The one line on stderr of a request that is refused with exit code 2."""
    assert main([str(w) for w in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lognet sweep: error: ")
    assert err.count("\n") == 1
    return err


def test_outputs(finished):
    out, stdout, stderr = finished
    assert stdout.splitlines()[-1] == f"report: {out / 'report.html'}"
    for label in ("FP32 Adam", "FP32 Madam", "8-bit Madam"):
        assert label in stdout
    assert "loss" in stderr  # the progress bar
    assert "6/6 runs" in stderr
    doc = document(out)
    assert doc["schema"] == 1
    assert len(doc["runs"]) == 6
    assert {r["seed"] for r in doc["runs"]} == {0, 1}
    assert set(doc["versions"]) == {"lognet", "torch", "numpy", "python", "platform"}
    with (out / "results.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [(r["contender"], int(r["seed"])) for r in rows] == [(r["contender"], r["seed"]) for r in doc["runs"]]
    assert [float(r["metric"]) for r in rows] == [r["metric"] for r in doc["runs"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "mnist"], "unknown task 'mnist'; the tasks are digits, text, cifar10"),
        (["--precisions", "fp16"], "unknown precision 'fp16'; use fp32 or a number of bits from 2 to 16"),
        (["--precisions", "17"], "unknown precision '17'"),
        (["--precisions", "1"], "unknown precision '1'"),
        (["--precisions", "-8"], "unknown precision '-8'"),
        (["--seeds", "one"], "unknown seed 'one'"),
        (["--seeds", "4294967296"], "unknown seed"),
        (["--steps", "0"], "argument --steps: '0' is not a whole number above 0"),
        (["--jobs", "two"], "argument --jobs: 'two' is not"),
        (["--tasks", "cifar10"], "--cifar10 DIR"),
        (["--cifar10", "no/such/folder"], "does not exist"),
        (["--text", "no/such/file"], "cannot read the text no/such/file: No such file or directory"),
        (["--taks", "text"], "unrecognized arguments: --taks text"),
        (["--tasks"], "argument --tasks: expected at least one argument"),
    ],
)
def test_wrong_requests_change_nothing(capsys, tmp_path, words, said):
    out = tmp_path / "sweep"
    assert said in refused(capsys, *words, "--out", out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n\t", "is empty"),
        (b"too short", "has 9 characters; at least 1280 are needed"),
        (b"\xff\xfe\x00" * 2000, "is not UTF-8 (byte 0)"),
    ],
)
def test_wrong_texts(capsys, tmp_path, content, said):
    text = tmp_path / "a.txt"
    text.write_bytes(content)
    assert said in refused(capsys, "--text", text, "--out", tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_folder_is_no_text(capsys, tmp_path):
    assert "cannot read the text" in refused(capsys, "--text", tmp_path, "--out", tmp_path / "sweep")


def test_out_that_is_a_file(capsys, tmp_path):
    out = tmp_path / "file"
    out.write_text("mine")
    assert "is not a folder; choose another --out" in refused(capsys, *TINY, "--out", out)
    assert out.read_text() == "mine"


def test_out_below_a_file(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(capsys, *TINY, "--out", tmp_path / "file" / "sweep")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: "null",
        lambda text: '{"schema": 1}',
        lambda text: text.replace('"schema": 1', '"schema": 99', 1),
        lambda text: text.replace('"seed": 0', '"seed": "zero"', 1),
        lambda text: text.replace('"metric": ', '"metric": NaN, "was": ', 1),
    ],
)
def test_damaged_results_are_refused_and_left_alone(capsys, tmp_path, finished, damage):
    out = tmp_path / "sweep"
    shutil.copytree(finished[0], out)
    path = out / "results.json"
    text = damage(path.read_text())
    path.write_text(text)
    said = refused(capsys, *TINY, "--steps", STEPS, "--out", out)
    assert f"{path} is damaged: " in said
    assert "choose another --out" in said
    assert path.read_text() == text


def test_other_settings_for_the_same_runs_are_refused(capsys, tmp_path, finished):
    out = tmp_path / "sweep"
    shutil.copytree(finished[0], out)
    said = refused(capsys, *TINY, "--steps", STEPS + 1, "--out", out)
    assert "holds runs of digits with other settings (steps 24 there, 25 now); use another --out, or delete" in said
    # Also for a contender that is not there yet: a table must not compare runs of different lengths.
    refused(capsys, "--tasks", "digits", "--precisions", "4", "--steps", STEPS + 1, "--out", out)


def test_other_optimizer_settings_are_refused(capsys, tmp_path, finished):
    from lognet.sweep.plan import fingerprint

    out = tmp_path / "sweep"
    shutil.copytree(finished[0], out)
    doc = document(out)
    run = next(r for r in doc["runs"] if r["contender"] == "madam-8")
    run["settings"]["optimizer"]["lr"] = 123.0
    run["fingerprint"] = fingerprint(run["settings"])
    (out / "results.json").write_text(json.dumps(doc))
    assert "holds digits, 8-bit Madam with other settings (lr 123.0 there," in refused(
        capsys, *TINY, "--steps", STEPS, "--out", out
    )


def test_one_sweep_at_a_time_in_a_folder(capsys, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    out = tmp_path / "sweep"
    out.mkdir()
    with (out / ".lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert "another sweep is writing to" in refused(capsys, *TINY, "--out", out)


@pytest.mark.parametrize(("module", "package"), [("sklearn.datasets", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_missing_packages(capsys, tmp_path, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to make an import fail
    said = refused(capsys, *TINY, "--out", tmp_path / "sweep")
    assert f'the sweep needs {package}; install it with: pip install "lognet[sweep]"' in said
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_real_process_has_no_traceback():
    code, stdout, stderr = sweep("sweep", "--tasks", "mnist", module="lognet")
    assert (code, stdout) == (2, "")
    assert stderr == "lognet sweep: error: unknown task 'mnist'; the tasks are digits, text, cifar10\n"


def test_lognet_command(capsys):
    assert lognet_main([]) == 2
    assert "a command is needed" in capsys.readouterr().err
    assert lognet_main(["swep"]) == 2
    assert "unknown command 'swep'" in capsys.readouterr().err
    assert lognet_main(["--help"]) == 0
    assert "sweep" in capsys.readouterr().out
    assert lognet_main(["--version"]) == 0
    with pytest.raises(SystemExit) as caught:
        lognet_main(["sweep", "--help"])
    assert caught.value.code == 0
    assert "--cifar10 DIR" in capsys.readouterr().out
