"""Who computes an operation: the back end of the tensors' device, or the plain function. The meta device stands for a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lognet.quant.kernels import bitpack, dispatch
from lognet.quant.kernels.bitpack import pack, unpack_codes
from lognet.quant.kernels.dispatch import BackEnd
from lognet.quant.kernels.native import back_end as cpu


@pytest.fixture
def meta(monkeypatch):
    monkeypatch.setattr(dispatch, "_BACK_ENDS", dict(dispatch._BACK_ENDS))
    return BackEnd("meta", ready=lambda: True, in_graphs=False)


def codes(*shape, device="meta"):
    return torch.zeros(*shape, dtype=torch.int32, device=device)


def test_a_registered_function_computes_on_its_device_alone(meta):
    @meta.computes
    def pack_codes(codes, bits):
        return bits

    assert bitpack.pack_codes(codes(3), 5) == 5
    assert bitpack.pack_codes(codes(3, device="cpu"), 5)[0].tolist() == [0, 0]


def test_what_a_back_end_does_not_take_or_have_is_computed_in_plain_torch(meta):
    asked = []
    meta.functions["pack"] = lambda values, width: asked.append(width) or NotImplemented
    assert pack(codes(8), 3).shape == (3,)
    assert pack.kernel(codes(8), 3) is NotImplemented
    assert asked == [3, 3]
    assert unpack_codes(pack(codes(8), 8), None, 8, count=8).shape == (8,)


def test_a_back_end_that_is_not_ready_is_not_asked(meta):
    meta.functions["pack"], meta.ready = None, lambda: False
    assert pack(codes(8), 3).shape == (3,)


def test_a_back_end_gets_contiguous_tensors_of_one_device(meta):
    meta.functions["unpack_codes"] = lambda low, high, *rest: (low.is_contiguous(), high.stride())
    planes = torch.zeros(2, 8, dtype=torch.uint8, device="meta").t()
    assert unpack_codes(planes[:, 0], planes[:, 1], 12, 4) == (True, (1,))
    assert unpack_codes.kernel(planes[:, 0], torch.zeros(8, dtype=torch.uint8), 12, 4) is NotImplemented


def test_every_function_of_the_native_back_end_is_named_after_an_operation():
    names = {"decode", "encode", "linear", "pack", "pack_codes", "unpack", "unpack_codes"}
    assert set(cpu.functions) == names


def test_lognet_can_be_imported_again():
    code = (
        "import importlib, sys, torch, lognet; importlib.reload(lognet.quant.kernels.codes)\n"
        "for name in [n for n in sys.modules if n.split('.')[0] == 'lognet']: del sys.modules[name]\n"
        "del lognet; import gc; gc.collect(); import lognet; gc.collect()\n"
        "w = lognet.LogTensor.from_float(torch.randn(5)); s = w._storage\n"
        "values = torch.ops.lognet.decode(s.low, s.high, s.sign, s.scale, 8, s.format.base_precision, 5, 0, 5)\n"
        "assert torch.equal(values, w.dequantize())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr


def test_importing_lognet_does_not_import_the_compiler():
    code = (
        "import sys, torch; had = set(sys.modules); import lognet; assert 'torch._dynamo' not in set(sys.modules) - had"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
