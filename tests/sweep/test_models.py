"""The same tasks on layers over algebras."""

import csv

from .conftest import document, sweep


def test_models_are_compared_in_one_command(tmp_path):
    out = tmp_path / "sweep"
    words = ["--tasks", "digits", "text", "--precisions", "fp32", "8", "--seeds", "0", "--steps", "3", "--out", out]
    code, stdout, stderr = sweep(*words, "--model", "R", "M2R", "H")
    assert code == 0, stderr
    runs = {(r["task"], r["contender"]): r for r in document(out)["runs"]}
    assert len(runs) == 2 * 3 * 3
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
    assert sweep(*words, "--model", "R", "M2R", "H")[1] == stdout
