"""What the widths cost, on real data: minutes of training."""

import json
import math
import statistics
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_few_bits_cost_nothing_beyond_seed_noise(tmp_path):
    """Of means at most two pooled standard errors: 12 bits below FP32 Madam, and 8 bits below tuned FP32 Adam."""
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "lognet.sweep", "--precisions", "fp32", "12", "8", "--seeds", "0", "1", "2"]
    subprocess.run([*command, "--out", str(out), "--quiet"], check=True)
    runs = json.loads((out / "results.json").read_text())["runs"]
    for task in ("digits", "text"):
        for few, exact in (("madam-12", "madam-fp32"), ("madam-8", "adam-fp32")):
            got, wanted = (
                [r["metric"] for r in runs if (r["task"], r["contender"]) == (task, contender)]
                for contender in (few, exact)
            )
            assert len(got) == len(wanted) == 3
            error = math.sqrt((statistics.variance(got) + statistics.variance(wanted)) / 3)
            difference = statistics.mean(got) - statistics.mean(wanted)
            worse = -difference if task == "digits" else difference
            assert worse <= 2 * error, f"{task}: {exact} {wanted}, {few} {got}, two standard errors {2 * error}"
