"""What the widths cost, on real data: minutes of training."""

import json
import math
import statistics
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twelve_bits_reach_fp32_madam_within_seed_noise(tmp_path):
    """Difference of means at most two pooled standard errors, for the conv net and for the transformer."""
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "lognet.sweep", "--precisions", "fp32", "12", "--seeds", "0", "1", "2"]
    subprocess.run([*command, "--out", str(out), "--quiet"], check=True)
    runs = json.loads((out / "results.json").read_text())["runs"]
    for task in ("digits", "text"):
        metrics = {
            c: [r["metric"] for r in runs if (r["task"], r["contender"]) == (task, c)]
            for c in ("madam-fp32", "madam-12")
        }
        exact, few = metrics["madam-fp32"], metrics["madam-12"]
        assert len(exact) == len(few) == 3
        error = math.sqrt((statistics.variance(exact) + statistics.variance(few)) / 3)
        difference = statistics.mean(few) - statistics.mean(exact)
        worse = -difference if task == "digits" else difference
        assert worse <= 2 * error, f"{task}: FP32 {exact}, 12 bits {few}, two standard errors {2 * error}"
