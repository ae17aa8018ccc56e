import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracles.compiler import SLOWLY

from lognet.quant.random_bits import (
    key_from_generator,
    key_tensor,
    mix64,
    random16,
    random_bools,
    random_words,
    uniform,
)


def fmix32(h: int) -> int:
    """MurmurHash3's finaliser in Python integers."""
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def test_words_are_the_documented_hash():
    key = mix64(5, 6, 7)
    multiplier, offset = key % 2**32 | 1, key >> 32
    assert random_words(100, key).tolist() == [fmix32((multiplier * i + offset) % 2**32) for i in range(100)]


def test_element_i_does_not_depend_on_how_many_are_drawn():
    assert torch.equal(random_words(1000, 9)[:10], random_words(10, 9))


def test_words_do_not_depend_on_the_thread_count():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = random_words(300_000, 4)
        torch.set_num_threads(2)
        assert torch.equal(random_words(300_000, 4), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype):
    n, cells = 400_000, 64
    for key in (0, 1, mix64(0, 1, 2)):
        u = uniform(n, key, dtype)
        assert u.dtype == dtype
        assert u.min() > 0
        assert u.max() <= 1
        counts = torch.histc(u.double(), cells, 0, 1)
        chi_square = ((counts - n / cells) ** 2 / (n / cells)).sum().item()
        assert chi_square < 63 + 5 * (2 * 63) ** 0.5
        assert abs(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1]) < 5 / n**0.5


def test_streams_are_unrelated():
    a, b = (uniform(100_000, mix64(0, step, 3)) for step in (1, 2))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / 100_000**0.5
    assert len({mix64(seed, step, index) for seed in range(10) for step in range(10) for index in range(10)}) == 1000


def test_generators_seed_keys():
    assert key_from_generator(torch.Generator().manual_seed(3)) == key_from_generator(torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    first = key_from_generator(None)
    assert key_from_generator(None) != first
    torch.manual_seed(1)
    assert key_from_generator(None) == first


@pytest.mark.parametrize("key", [0, 1, 7, 2**32 - 1, 2**32, 2**63 + 12345, 2**64 - 1])
def test_a_key_in_a_tensor_is_the_same_key(key):
    assert torch.equal(random_words(100, key_tensor(key)), random_words(100, key))
    assert torch.equal(random_bools(100, key_tensor(key)), random_words(100, key) >= 2**31)


def test_16_bits_are_those_of_the_documented_words():
    words = random_words(64, 5).tolist()
    place = lambda i: (i // 32 * 16 + i % 16, i % 32 // 16)
    expected = [words[word] >> 16 * upper & 0xFFFF for word, upper in map(place, range(100))]
    assert random16(100, 5).tolist() == expected
    assert random16(100, key_tensor(5)).tolist() == expected
    for start in (1, 17, 31, 32, 77):
        assert random16(100 - start, 5, start).tolist() == expected[start:]


def test_16_bits_are_uniform_and_unrelated_to_their_neighbours():
    n, cells = 400_000, 64
    for key in (0, 1, mix64(0, 1, 2)):
        h = random16(n, key).double()
        counts = torch.histc(h, cells, 0, 2**16)
        assert ((counts - n / cells) ** 2 / (n / cells)).sum().item() < 63 + 5 * (2 * 63) ** 0.5
        for distance in (1, 16, 32):
            pair = torch.stack([h[distance:], h[:-distance]])
            assert abs(torch.corrcoef(pair)[0, 1]) < 5 / n**0.5


SCALAR = """
import torch
from lognet.quant.random_bits import random16, random_words
torch._inductor.config.cpp.simdlen = 1  # where overflow of signed integers, which C++ leaves open, would show
for key in (7, 0x3456781, 0x540000001):
    for draw in (random_words, random16):
        assert torch.equal(torch.compile(lambda: draw(100, key))(), draw(100, key)), (draw, key)
"""


@pytest.mark.parametrize("compiler", [pytest.param("inductor", marks=SLOWLY)])
def test_compiled_scalar_code_draws_the_same(compiler):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCALAR], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, (compiler, done.stderr)
