"""examples/distributed.py on real ranks."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

# torch 2.6's fully_shard fails on CPUs, of an nn.Linear too: its streams there have no events
pytestmark = pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch has no FSDP2 on CPUs")

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "examples" / "distributed.py"


def train_on_ranks(*arguments):
    spec = importlib.util.spec_from_file_location("distributed_example", PATH)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model, accuracy = example.train(*arguments)
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return [(p.detach().exponent, p.detach().signs) for p in whole], accuracy


@pytest.mark.parametrize("engines", [("fsdp", "fsdp"), ("ddp", "fsdp"), ("fsdp", "ddp")], ids=str)
def test_it_goes_on_from_its_checkpoint_as_if_never_stopped(ranks, engines, tmp_path):
    first, second = engines
    straight = ranks(train_on_ranks, second, 8, 40, 20, str(tmp_path / "straight"))
    ranks(train_on_ranks, first, 8, 40, 20, str(tmp_path / "stopped"), 25)
    assert sorted(os.listdir(tmp_path / "stopped")) == ["20"]
    for result, expected in zip(
        ranks(train_on_ranks, second, 8, 40, 20, str(tmp_path / "stopped")), straight, strict=True
    ):
        for (k, signs), (k_expected, signs_expected) in zip(result[0], expected[0], strict=True):
            assert torch.equal(k, k_expected)
            assert torch.equal(signs, signs_expected)
        assert result[1] == expected[1] > 60


@pytest.mark.slow
def test_torchrun(tmp_path):
    """As a user starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(PATH)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for steps, said in ((20, []), (30, ["going on from step 20"])):
        run = subprocess.run(
            [*command, "--steps", str(steps), "--every", "20", "--folder", str(tmp_path)],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        *lines, last = run.stdout.splitlines()
        assert lines == said
        assert last.startswith("8 bits, fsdp on 2 processes: ")
