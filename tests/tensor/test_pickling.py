"""Copies and pickles, also in other processes."""

import copy
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lognet import LogTensor

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("bits", [2, 8, 10])
def test_copies_of_every_kind(bits):
    w = nn.Parameter(LogTensor.from_float(torch.randn(6, 10), bits=bits))
    buffer = io.BytesIO()
    torch.save(w, buffer)
    for load in (
        lambda: copy.deepcopy(w),
        lambda: pickle.loads(pickle.dumps(w)),
        lambda: torch.load(io.BytesIO(buffer.getvalue()), weights_only=True),
        lambda: torch.load(io.BytesIO(buffer.getvalue()), weights_only=False),
    ):
        other = load()
        assert isinstance(other, LogTensor)
        assert isinstance(other, nn.Parameter)
        assert other.requires_grad
        assert other.format == w.format
        assert torch.equal(other, w)
        assert other.nbytes == w.nbytes
        with torch.no_grad():
            other.zero_()
        assert not torch.equal(other, w)
    assert len(buffer.getvalue()) < 4000 + w.nbytes


SPAWN = """
import sys, torch, torch.multiprocessing as mp
import lognet
from torch import nn

def work(model, x, results):
    results[0] = model(x).detach()
    with torch.no_grad():
        model.bias.fill_(0.05)

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = lognet.wrap(nn.Linear(4, 3), bits=int(sys.argv[1]))
    expected, x = None, torch.ones(2, 4)
    with mp.Manager() as manager:
        for shared in (False, True):
            if shared:
                model.share_memory()
            expected, results = model(x).detach(), manager.dict()
            process = mp.get_context("spawn").Process(target=work, args=(model, x, results))
            process.start()
            process.join()
            assert process.exitcode == 0
            assert torch.equal(results[0], expected)
        assert ((model.bias - 0.05).abs() < 0.001).all(), model.bias  # written by the other process
"""


def test_spawned_workers_get_the_model_and_share_its_memory(tmp_path):
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # also where lognet is not installed
    done = subprocess.run([sys.executable, str(script), "10"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


READER = """
import sys, torch, lognet
model, state = sys.argv[1:]
w = torch.load(state, weights_only=True)["weight"]
assert torch.equal(torch.load(model, weights_only=False)(torch.eye(4)), w.dequantize().T)
assert w.base_precision == 0.0123
"""


def test_a_process_that_has_not_met_the_ladder_reads_pickles(tmp_path):
    files = [str(tmp_path / name) for name in ("model.pt", "state.pt")]
    model = nn.Linear(4, 3, bias=False)
    model.weight = nn.Parameter(LogTensor.from_float(model.weight.detach(), 8, base_precision=0.0123))
    torch.save(model, files[0])
    torch.save(model.state_dict(), files[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", READER, *files], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
