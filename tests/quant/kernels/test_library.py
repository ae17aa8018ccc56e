"""Which back end is in use: named by the environment, or the best that there is; and what is said without one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from oracles.kernels import BACKENDS

ROOT = Path(__file__).resolve().parents[3]


def run(code, **environment):
    command = [sys.executable, "-W", "always", "-c", "from lognet import LogTensor\nimport torch\n" + code]
    return subprocess.run(
        command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True
    )


DECODE = "print(LogTensor.from_float(torch.tensor([1.0, -0.5])).dequantize().tolist())\n"


@pytest.mark.parametrize("name", ["reference", "portable"])
def test_the_environment_names_the_back_end(name):
    done = run(DECODE + "from lognet.quant import kernels; print(kernels.backend())", LOGNET_KERNELS=name)
    expected = name if shutil.which("c++") else "reference"
    assert done.stdout.split("\n")[:2] == ["[1.0, -0.5]", expected], done.stderr


def test_a_wrong_name_in_the_environment_is_refused():
    done = run(DECODE, LOGNET_KERNELS="fast")
    assert "LOGNET_KERNELS must be one of reference, portable, avx2, avx512, got 'fast'" in done.stderr


@pytest.mark.parametrize("stale", [False, True])
def test_without_kernels_all_works_and_one_warning_says_what_is_lost(stale):
    hide = (
        "library.native_digest = lambda: 'other'\n"
        if stale and BACKENDS[0] == "portable"
        else "library._FOLDER = library._FOLDER / 'nowhere'\n"
    )
    done = run("from lognet.quant.kernels import library\n" + hide + DECODE + DECODE)
    assert done.stdout == "[1.0, -0.5]\n" * 2
    assert done.stderr.count("UserWarning: lognet") == 1
    assert "install a C++ compiler" in done.stderr
