"""From floats to planes: the native kernels against the plain torch code, and that against the logarithm in many digits."""

import math

import pytest
import torch
from oracles.kernels import BACKENDS
from oracles.ladder import float32, rounded_rung

from lognet import LogFormat, LogTensor
from lognet.quant import kernels
from lognet.quant.kernels.bitpack import pack, pack_codes
from lognet.quant.kernels.codes import signs_of
from lognet.quant.log_format import PIECE
from lognet.quant.random_bits import drawn, key_from_generator, random16

SIZES = [0, 1, 7, 15, 16, 17, 31, 127, 128, 129, 251]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ROUNDINGS = ("nearest", "stochastic")
SCALE = 0.9
backends = pytest.mark.parametrize("backend", BACKENDS)


def ladders(bits):
    """The default one, a narrower one, and the ends of what a width may have: rungs of a float32 each, and all of float32."""
    finest, widest = 2.4e-7, 80 / 2**bits
    return [LogFormat(bits, eta_0) for eta_0 in (None, 0.6 * LogFormat(bits).base_precision, finest, widest)]


def difficult(ladder, dtype):
    """Values on rungs and edges, and the next ones of the dtype on both sides; the smallest and the largest; zeros."""
    k = torch.arange(0, 2**ladder.bits, max(1, 2**ladder.bits // 16), dtype=torch.float64)
    places = torch.cat([k, k + 0.5, k + 1e-3])
    x = (float32(SCALE) * torch.exp(-places * ladder.base_precision)).to(dtype)
    info = torch.finfo(dtype)
    ends = torch.tensor([0.0, -0.0, info.smallest_normal / 2, info.smallest_normal, info.max], dtype=torch.float64).to(
        dtype
    )
    beside = [torch.nextafter(x, torch.full_like(x, to)) for to in (0, 100)] if dtype != torch.float16 else [x]
    x = torch.cat([x, *beside, ends])
    return torch.cat([x, -x])


def planes(x, ladder, rounding, seed=5, scale=SCALE):
    """What is written down, by name, and the rungs by the definition."""
    generator = torch.Generator().manual_seed(seed)
    w = LogTensor.from_float(x, ladder.bits, ladder.base_precision, scale, rounding, generator)
    return w._storage.planes()


def check(backend, x, ladder, rounding):
    found = []
    for name in ("reference", backend):
        with kernels.use(name):
            found.append(planes(x, ladder, rounding))
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        assert torch.equal(found[1][name], expected), (name, x.dtype, ladder, rounding, len(x))


@backends
@pytest.mark.parametrize("bits", range(2, 17))
def test_native_planes_are_those_of_the_reference(backend, bits):
    generator = torch.Generator().manual_seed(bits)
    for dtype in DTYPES:
        for ladder in ladders(bits):
            for rounding in ROUNDINGS:
                check(backend, difficult(ladder, dtype), ladder, rounding)
        for n in SIZES:
            x = torch.randn(n, generator=generator, dtype=torch.float64).exp() * torch.randn(n, generator=generator)
            x[::5] = 0
            for rounding in ROUNDINGS:
                check(backend, x.to(dtype), LogFormat(bits), rounding)


@backends
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_native_planes_of_more_weights_than_a_thread_takes_at_once(backend, threads, rounding):
    torch.set_num_threads(threads)
    x = torch.randn(100_003, generator=torch.Generator().manual_seed(0))
    x[::3] = 0
    check(backend, x, LogFormat(11), rounding)


@backends
def test_strided_values_are_encoded_as_contiguous_ones(backend):
    x = torch.randn(60, 40)
    with kernels.use(backend):
        for strided in (x.t(), x[::2, 1:9], x.view(-1)[::3], x.expand(2, 60, 40)):
            expected = planes(strided.contiguous(), LogFormat(9), "stochastic")
            assert all(
                torch.equal(expected[name], plane)
                for name, plane in planes(strided, LogFormat(9), "stochastic").items()
            )


def test_rungs_of_strided_magnitudes():
    x, scale = torch.rand(6, 5), torch.tensor(SCALE)
    for rounding in ROUNDINGS:
        random = drawn(rounding, x.numel(), key=3)
        random = random if random is None else random.view(x.t().shape)
        expected = LogFormat(8).encode(x.t().contiguous(), scale, random)
        assert torch.equal(LogFormat(8).encode(x.t(), scale, random), expected)


@pytest.mark.parametrize("bits", [2, 3, 5, 8, 12, 16])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rungs_are_those_of_the_logarithm(bits, rounding):
    """An independent logarithm, and the random bits by their documented place in the stream."""
    key, start = 77, 13
    for ladder in ladders(bits)[:2] + ladders(bits)[3:]:
        x = difficult(ladder, torch.float32).abs()
        x = torch.cat([x, torch.rand(50, generator=torch.Generator().manual_seed(1)) ** 4])
        u = (
            (random16(len(x), key, start).double() + 0.5) / 2**16
            if rounding == "stochastic"
            else torch.full((len(x),), 0.5)
        )
        close = 1.001 * 2**-23 / ladder.base_precision
        u = u.double().clamp(close, 1 - close)  # a value on a rung stays
        found = ladder.encode(x, torch.tensor(SCALE), drawn(rounding, len(x), key, start)).tolist()
        scale, compared = float32(SCALE), 0
        for value, k, share in zip(x.tolist(), found, u.tolist(), strict=True):
            expected = rounded_rung(value, scale, ladder.base_precision, bits, share)
            compared += expected is not None
            assert expected in (None, k), (value, k, share)
        assert compared > 0.9 * len(x)


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
def test_the_mean_over_all_random_bits_is_the_position(bits):
    ladder = LogFormat(bits)
    every = torch.arange(2**16, dtype=torch.int32)
    for position in (0.25, 1.7, 2.0001, 2**bits - 1.4):
        y = torch.full((2**16,), math.exp(-position * ladder.base_precision), dtype=torch.float64)
        k = ladder.encode(y, torch.tensor(1.0), every)
        assert abs(k.double().mean().item() - position) <= max(2**-17, 1.01 * 2**-23 / ladder.base_precision)
        assert set(k.tolist()) <= {math.floor(position), math.floor(position) + 1}


@backends
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_decoded_values_keep_their_codes(backend, rounding, bits):
    w = LogTensor.from_codes(torch.arange(2**bits), torch.ones(2**bits), bits, scale=1.7)
    with kernels.use(backend):
        again = LogTensor.from_float(w.dequantize(), bits, scale=1.7, rounding=rounding)
    assert torch.equal(again.exponent, w.exponent)


def stream(values, width):
    """The documented layout, bit by bit."""
    bits = [value >> i & 1 for value in values for i in range(width)]
    words = [sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)]
    return torch.tensor(words, dtype=torch.uint8)


@backends
@pytest.mark.parametrize("width", range(1, 17))
def test_packing(backend, width):
    for n in SIZES:
        codes = torch.randint(0, 2**width, (n,), generator=torch.Generator().manual_seed(n))
        low = stream([code & 255 for code in codes.tolist()], min(width, 8))
        small = [torch.int16] * (width < 16) + [torch.uint8] * (width <= 8)
        with kernels.use(backend):
            for dtype in (torch.int64, torch.int32, *small):
                packed, high = pack_codes(codes.to(dtype), width)
                assert torch.equal(packed, low)
                assert (high is None) == (width <= 8)
                if high is not None:
                    assert torch.equal(high, stream([code >> 8 for code in codes.tolist()], width - 8))
            if width == 1:
                assert torch.equal(pack(codes.bool(), 1), low)
            if width <= 8:
                assert torch.equal(pack(codes.repeat_interleave(2)[::2], width), low)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("bits", "dtype"), [(5, torch.float32), (8, torch.bfloat16), (12, torch.float64)])
def test_encoding_in_pieces_is_encoding_at_once(bits, dtype, rounding):
    """Rungs, signs of zeros and random bits, on both sides of the seam."""
    x = 0.1 * torch.randn(PIECE + 13, dtype=dtype)
    x[::3] = 0
    w = LogTensor.from_float(x, bits, scale=0.3, rounding=rounding, generator=torch.Generator().manual_seed(5))
    key = key_from_generator(torch.Generator().manual_seed(5))
    assert torch.equal(w.exponent, w.format.encode(x.abs(), w.scale, drawn(rounding, len(x), key)))
    assert torch.equal(w.signs < 0, signs_of(x, key))
