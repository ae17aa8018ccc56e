import pytest
import torch

from lognet.quant.kernels.bitpack import pack, pack_codes, packed_bytes, unpack, unpack_codes

COUNTS = [0, 1, 7, 8, 9, 63, 1000, 1001]


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("count", COUNTS)
def test_round_trip_and_size(width, count):
    values = torch.randint(0, 2**width, (count,), generator=torch.Generator().manual_seed(width))
    stream = pack(values, width)
    assert stream.dtype == torch.uint8
    assert stream.untyped_storage().nbytes() == packed_bytes(count, width) == -(-count * width // 8)
    assert unpack(stream, width, count).tolist() == values.tolist()


@pytest.mark.parametrize("width", range(1, 9))
def test_the_stream_is_little_endian_bits(width):
    values = torch.randint(0, 2**width, (37,), generator=torch.Generator().manual_seed(width)).tolist()
    number = sum(v << (i * width) for i, v in enumerate(values))  # the whole stream as one integer
    assert bytes(pack(torch.tensor(values), width).tolist()) == number.to_bytes(packed_bytes(37, width), "little")


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("count", COUNTS)
def test_codes_of_every_width(bits, count):
    codes = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(bits), dtype=torch.int32)
    low, high = pack_codes(codes, bits)
    assert low.numel() + (0 if high is None else high.numel()) <= (count * bits + 7) // 8 + 1
    assert torch.equal(unpack_codes(low, high, bits, count), codes)
    for start in range(0, count, 64):
        n = min(13, count - start)
        assert torch.equal(unpack_codes(low, high, bits, n, start), codes[start : start + n])


def test_windows_start_at_byte_boundaries():
    low, high = pack_codes(torch.arange(16), 4)
    with pytest.raises(ValueError, match="start must be a multiple of 8, got 3"):
        unpack_codes(low, high, 4, 2, start=3)
