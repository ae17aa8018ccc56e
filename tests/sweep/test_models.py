"""The same tasks on layers over algebras."""

import csv

import pytest

from lognet import algebraize
from lognet.nn import Algebra
from lognet.sweep.cli import main
from lognet.sweep.models import ConvNet
from lognet.sweep.plan import TASKS, find_task
from lognet.sweep.variants import ALGEBRAS

from .conftest import document


def test_models_are_compared_in_one_command(tmp_path, capsys):
    out = tmp_path / "sweep"
    words = ["--tasks", "digits", "text", "--precisions", "8", "--seeds", "0", "--steps", "3", "--jobs", "1"]
    words += ["--model", "R", "M2R", "H", "--out", str(out)]
    assert main(words) == 0
    stdout = capsys.readouterr().out
    runs = {(r["task"], r["contender"]): r for r in document(out)["runs"]}
    assert len(runs) == 2 * 3
    for base in ("digits", "text"):
        assert f"{base}: models compared" in stdout
        real, m2r, h = (runs[base + variant, "madam-8"] for variant in ("", "/M2R", "/H"))
        assert real["macs"] == h["macs"] > m2r["macs"]
        assert real["bytes"]["parameters"] > 2 * h["bytes"]["parameters"] == 2 * m2r["bytes"]["parameters"]
        assert real["bytes"]["weights"] > 2 * m2r["bytes"]["weights"]
        # the data and their order are the task's, whatever the model
        assert real["settings"]["task"]["data_sha256"] == h["settings"]["task"]["data_sha256"]
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert {row["task"] for row in rows} == {"digits", "digits/M2R", "digits/H", "text", "text/M2R", "text/H"}
    assert "Models of digits compared" in (out / "report.html").read_text()
    assert main(words) == 0
    assert capsys.readouterr().out == stdout


@pytest.mark.parametrize("algebra", ALGEBRAS)
@pytest.mark.parametrize("base", TASKS)
def test_widths_are_whole_tuples_and_said_where_they_differ(base, algebra):
    task, variant = TASKS[base], find_task(f"{base}/{algebra}")
    size, width, heads = Algebra(algebra).size, variant.model["width"], variant.model.get("heads", 1)
    assert width % size == 0
    assert width % heads == 0
    assert abs(width - task.model["width"]) <= size * heads / 2
    same = width == task.model["width"]
    assert same == (size in (2, 4, 8, 16))
    assert variant.title == f"{task.title}, over {algebra}" + ("" if same else f", {width} wide")
    if base == "digits":
        assert list(algebraize(ConvNet(10, width), algebra, exclude="head")[1].kept) == ["features.0", "head"]


def test_tuples_of_nine_and_three(tmp_path, capsys):
    words = ["--tasks", "digits", "text", "--precisions", "8", "--seeds", "0", "--steps", "2", "--jobs", "1"]
    assert main([*words, "--model", "M3R", "D3", "--out", str(tmp_path / "out")]) == 0
    stdout = capsys.readouterr().out
    assert "Handwritten digits, conv net, over M3R, 36 wide" in stdout
    assert "2-layer transformer, over D3, 60 wide" in stdout
    runs = {r["task"]: r for r in document(tmp_path / "out")["runs"]}
    assert {name: run["settings"]["task"]["model"]["width"] for name, run in runs.items()} == {
        "digits/M3R": 36,
        "digits/D3": 33,
        "text/M3R": 72,
        "text/D3": 60,
    }
    compared = next(line for line in stdout.splitlines() if line.startswith("digits/M3R "))
    assert compared.split()[2] == "36"
