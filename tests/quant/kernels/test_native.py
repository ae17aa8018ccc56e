"""The native operations against the plain torch ones, which are the specification: equal to the bit."""

import re
from pathlib import Path

import pytest
import torch
from oracles.kernels import BACKENDS

from lognet import LogTensor
from lognet.quant import kernels
from lognet.quant.kernels.bitpack import pack, pack_codes, unpack, unpack_codes

SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 127, 128, 129, 251, 1000]
backends = pytest.mark.parametrize("backend", BACKENDS)


def weights(n, bits, scale=1.7, base_precision=None):
    g = torch.Generator().manual_seed(n)
    signs = torch.randint(0, 2, (n,), generator=g) * 2 - 1
    return LogTensor.from_codes(torch.randint(0, 2**bits, (n,), generator=g), signs, bits, scale, base_precision)


@backends
@pytest.mark.parametrize("bits", range(2, 17))
def test_decoding(backend, bits):
    for n in SIZES:
        w = weights(n, bits)
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            values = []
            for name in ("reference", backend):
                with kernels.use(name):
                    values.append(
                        (w.dequantize(dtype), w.exponent, w.signs, *(w[3:].dequantize() for _ in range(n > 3)))
                    )
            for expected, found in zip(*values, strict=True):
                assert expected.dtype == found.dtype
                assert torch.equal(expected, found)


@backends
@pytest.mark.parametrize("width", range(1, 17))
def test_unpacking_whole_streams_and_windows(backend, width):
    for n in SIZES:
        codes = torch.randint(0, 2**width, (n,), dtype=torch.int32)
        low, high = pack_codes(codes, width)
        with kernels.use(backend):
            assert torch.equal(unpack_codes(low, high, width, n), codes)
            for start in range(0, n, 40):
                count = min(29, n - start)
                assert torch.equal(unpack_codes(low, high, width, count, start), codes[start : start + count])
            if width <= 8:
                assert torch.equal(unpack(pack(codes, width), width, n), codes.to(torch.uint8))


@backends
@pytest.mark.parametrize("threads", [1, 2])
def test_more_weights_than_a_thread_takes_at_once(backend, threads):
    w = weights(100_003, 11)
    torch.set_num_threads(threads)
    with kernels.use("reference"):
        expected = w.dequantize()
    with kernels.use(backend):
        assert torch.equal(w.dequantize(), expected)


def advice(address):
    """The flags of the mapping that an address is in, as the kernel abbreviates them: hg is the advice of large pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"{address:x} is not mapped")


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists() or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="Linux with large pages",
)
@pytest.mark.parametrize("backend", BACKENDS[:1])
def test_large_pages_are_asked_for_where_the_result_has_a_mapping_of_its_own(backend):
    columns = 3001
    for rows, asked in ((100, False), (4000, True)):
        w = LogTensor.from_float(torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)))
        with kernels.use(backend):
            values = w.dequantize()
        assert ("hg" in advice(values.data_ptr() + values.nbytes // 2)) == asked
        with kernels.use("reference"):
            assert torch.equal(values, w.dequantize())


@backends
@pytest.mark.parametrize("bits", [5, 8, 12])
def test_strided_planes_are_read_as_contiguous_ones(backend, bits):
    w = weights(129, bits)
    strided = w._storage.map(lambda plane: plane.repeat_interleave(2)[::2] if plane.dim() else plane)
    with kernels.use(backend):
        assert not strided.low.is_contiguous()
        assert torch.equal(strided.exponent(), w.exponent)
        assert torch.equal(strided.decode(torch.float32), w.dequantize())


def test_a_tensor_that_is_traced_or_elsewhere_takes_the_plain_path():
    assert pack.kernel(torch.zeros(3, dtype=torch.int32, device="meta"), 4) is NotImplemented
    with torch._subclasses.FakeTensorMode():
        assert pack.kernel(torch.zeros(3, dtype=torch.int32), 4) is NotImplemented
