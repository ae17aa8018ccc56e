"""Products straight from the codes: against decoding and multiplying in float64, on every back end that is here."""

import pytest
import torch
from oracles.kernels import native_backends

from lognet import LogFormat
from lognet.quant.kernels import backend, native, use
from lognet.quant.kernels.bitpack import pack, pack_codes

SHAPES = [
    (0, 8),
    (3, 0),
    (1, 1),
    (5, 15),
    (3, 16),
    (4, 17),
    (7, 31),
    (2, 40),
    (13, 104),
    (11, 257),
    (3, 1024),
    (70, 4096),
]
LEVELS = native_backends()
if backend() != "reference":
    assert "portable" in LEVELS
pytestmark = pytest.mark.skipif(not LEVELS, reason="installed without the native kernels")


class Weight:
    """Random codes on a ladder, and what they stand for."""

    def __init__(self, bits, shape, base_precision=None, scale=0.3):
        generator = torch.Generator().manual_seed(bits)
        self.format, self.shape = LogFormat(bits, base_precision), shape
        k = torch.randint(2**bits, shape, generator=generator)
        negative = torch.rand(shape, generator=generator) < 0.5
        self.low, self.high = pack_codes(k, bits)
        self.sign, self.scale = pack(negative, 1), torch.tensor(scale)
        magnitude = self.scale.double() * (k.double() * -self.format.base_precision).exp()
        self.values = torch.where(negative, -magnitude, magnitude)

    def codes(self):
        return self.low, self.high, self.sign, self.scale, self.format.bits, self.format.base_precision

    def product(self, x, bias=None):
        return native.linear(x.contiguous(), *self.codes(), self.shape[0], bias)


def close(y, weight, x):
    """Within what `codes.linear` promises, and the rounding of the rungs: one more each."""
    exact, sizes = x.double() @ weight.values.T, x.double().abs() @ weight.values.abs().T
    return bool(((y.double() - exact).abs() <= (weight.shape[1] + 10) * 2.0**-24 * sizes).all())


def vectors(batch, columns):
    return torch.randn(batch, columns, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", range(2, 17))
def test_every_width_and_shape(level, bits):
    with use(level):
        for shape in SHAPES if bits in (8, 10, 12) else SHAPES[:-2]:
            weight = Weight(bits, shape)
            for batch in (0, 1, 2, 3, 4, 5, 9):
                x = vectors(batch, shape[1])
                y = weight.product(x)
                assert y.shape == (batch, shape[0])
                assert close(y, weight, x), (bits, shape, batch)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("bits", "base_precision"), [(8, 0.02), (12, 0.001), (10, 0.05), (4, 0.3)])
def test_other_ladders(level, bits, base_precision):
    weight, x = Weight(bits, (9, 64), base_precision), vectors(3, 64)
    with use(level):
        assert close(weight.product(x), weight, x)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [3, 8, 11, 12])
def test_a_bias_is_added_to_the_sums(level, bits):
    """To the bit what adding it afterwards gives, whether it comes as floats or as codes of a ladder of its own."""
    with use(level):
        for rows, columns in ((1, 8), (5, 15), (131, 40), (7, 0)):
            weight, bias = Weight(8, (rows, columns)), Weight(bits, (rows,), scale=0.7)
            values = native.decode(*bias.codes(), rows, 0, rows)
            for batch in (0, 1, 2, 5):
                x = vectors(batch, columns)
                expected = weight.product(x) + values
                assert torch.equal(weight.product(x, bias=values), expected)
                assert torch.equal(weight.product(x, bias=bias.codes()), expected)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("level", LEVELS)
def test_every_code_is_multiplied_by_what_it_stands_for(level, bits):
    """One weight at a time: the complete set of codes and signs, to one rounding of float32 for each of its factors."""
    weight = Weight(bits, (2**bits, 8))
    k = torch.arange(2**bits).unsqueeze(1).expand(-1, 8)
    negative = torch.arange(8).expand(2**bits, -1) % 2 == 1
    weight.low, weight.high = pack_codes(k, bits)
    weight.sign = pack(negative, 1)
    with use(level):
        y = weight.product(torch.eye(8))
    exact = weight.scale.double() * (k[:, 0].double() * -weight.format.base_precision).exp()
    expected = torch.stack([exact, -exact] * 4)
    assert ((y.double() / expected - 1).abs() <= 4 * 2.0**-24).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [8, 9, 12])
def test_the_order_of_the_sums_depends_on_the_columns_alone(level, bits):
    """Threads, other rows of the weight and other rows of x change no bit."""
    weight, x = Weight(bits, (300, 2000)), vectors(7, 2000)
    threads = torch.get_num_threads()
    try:
        with use(level):
            torch.set_num_threads(1)
            one = weight.product(x)
            torch.set_num_threads(2)
            assert torch.equal(weight.product(x), one)
            for row in range(7):
                assert torch.equal(weight.product(x[row : row + 1])[0], one[row])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("level", LEVELS)
def test_infinities_and_nan_pass_through(level):
    weight, x = Weight(8, (3, 40)), vectors(1, 40)
    with use(level):
        x[0, 33] = torch.inf
        assert torch.equal(weight.product(x)[0], torch.inf * weight.values[:, 33].sign().float())
        x[0, 3] = torch.nan
        assert weight.product(x).isnan().all()
