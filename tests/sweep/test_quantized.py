"""Precisions of weights, activations and gradients: how they are spelled, and what a sweep makes of them."""

import copy
import csv
import json

import pytest

from lognet.convert.quantizers import quantizers_of
from lognet.sweep.cli import main
from lognet.sweep.errors import SweepError
from lognet.sweep.plan import Contender, Run, contenders, load, plan
from lognet.sweep.results import as_csv, order
from lognet.sweep.schema import check
from lognet.sweep.train import build, make_optimizer

from .conftest import document


def test_spellings():
    words = [
        "8/fixed8/fp32",
        "8/8/8",
        "fp32",
        "8/log8/LOG8".lower(),
        "8",
        "4/float8/e5m2",
        "8/FP32/fp32",
        "8/e4m3/block8",
    ]
    found = contenders(words)
    assert [c.key for c in found] == [
        *("adam-fp32", "madam-fp32", "madam-8", "madam-8/8/8", "madam-8/fixed8/fp32", "madam-8/float8/block8"),
        "madam-4/float8/e5m2",
    ]
    assert [c.label for c in found][1:4] == ["FP32 Madam", "8-bit Madam", "8/8/8 Madam"]
    assert contenders([c.precision for c in found]) == found
    for c in found:
        assert (
            Contender.of({"optimizer": c.optimizer, "bits": c.bits, "activation": c.activation, "gradient": c.gradient})
            == c
        )
    assert Contender.of({"optimizer": "madam", "bits": 8}) == Contender("madam", 8)  # a record of before


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("8/8", "unknown precision '8/8'; give weights/activations/gradients, as in 8/8/8"),
        ("8/8/8/8", "unknown precision '8/8/8/8'"),
        ("fp32/8/8", "unknown precision 'fp32/8/8'; use fp32 or a number of bits"),
        ("8/fixd8/8", "unknown precision '8/fixd8/8': unknown quantizer 'fixd8'"),
        ("8/8/1", "unknown precision '8/8/1': bits must be from 2 to 16, got 1"),
        ("8//8", "unknown precision '8//8': unknown quantizer ''"),
    ],
)
def test_wrong_spellings(word, said):
    with pytest.raises(SweepError, match=said):
        contenders([word])


def test_settings_say_all_of_a_format_and_nothing_where_there_is_none():
    data = {"digits": load("digits", None)}
    plain, few = plan(["digits"], contenders(["8", "8/8/6"]), [0], data, {}, 2)
    assert "activation" not in plain.settings["optimizer"]  # fingerprints of before hold
    settings = few.settings["optimizer"]
    assert (settings["activation"]["bits"], settings["activation"]["rounding"]) == (8, "nearest")
    assert (settings["gradient"]["bits"], settings["gradient"]["rounding"]) == (6, "stochastic")
    assert Run.from_json(json.loads(json.dumps(few.as_json()))) == few
    model = build(few, data["digits"])
    make_optimizer(few, model)
    assert {(str(q.activation), str(q.gradient)) for q in quantizers_of(model).values()} == {("log8", "log6")}


def test_a_sweep_of_them(tmp_path, capsys):
    out = tmp_path / "sweep"
    words = ["--tasks", "digits", "--precisions", "8/8/8", "8", "--seeds", "0", "--steps", "2", "--jobs", "1"]
    assert main([*words, "--quiet", "--out", str(out)]) == 0
    assert "8/8/8 Madam" in capsys.readouterr().out
    doc = document(out)
    assert [(r["contender"], r["activation"], r["gradient"]) for r in doc["runs"]] == [
        ("madam-8", None, None),
        ("madam-8/8/8", "8", "8"),
    ]
    assert "--precisions 8 8/8/8" in doc["commands"][0]
    assert doc["runs"][0]["curve"]["loss"] != doc["runs"][1]["curve"]["loss"]
    assert "8/8/8 Madam" in (out / "report.html").read_text()
    rows = list(csv.DictReader(as_csv(doc["runs"]).splitlines()))
    assert [(r["activation"], r["gradient"]) for r in rows] == [("fp32", "fp32"), ("8", "8")]
    before = copy.deepcopy(doc)
    for run in before["runs"]:
        del run["activation"], run["gradient"]
    before["runs"] = before["runs"][:1]
    check(before)
    assert sorted([*doc["runs"][1:], doc["runs"][0]], key=order) == doc["runs"]
    wrong = copy.deepcopy(doc)
    wrong["runs"][1]["gradient"] = "fixed8"
    with pytest.raises(SweepError, match="contender should be 'madam-8/8/fixed8'"):
        check(wrong)
    wrong["runs"][1]["gradient"] = 8
    with pytest.raises(SweepError, match="gradient should be"):
        check(wrong)
