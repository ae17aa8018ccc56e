"""Random bits that are a pure function of (seed, stream, element index), and the two ways to round to a rung.

Nothing here has state, because replicas of a model, resumed runs and every thread count must draw the same bits. A
64-bit mix of the seed and the stream's names (step, parameter index, ...) gives an odd multiplier and an offset, and
each element hashes its own index with them::

    word_i = fmix32(multiplier * i + offset  mod 2^32)

`fmix32` is the public-domain finaliser of MurmurHash3 (A. Appleby): two multiplications and three shifts, which a
vector unit does in a few cycles for eight weights at once. The scalar mix is SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014).

Users name a rounding: "nearest", or "stochastic" for one of the two rungs around a number, drawn without bias. Functions take
random numbers in one argument instead: None rounds to nearest, a tensor of random numbers rounds stochastically. Each function
says what is nearest, and what the mean is. `LogFormat.encode` rounds in log space. The optimizer's moves
(`lognet.quant.ratios`), its averages (`lognet.quant.block_format`) and the quantizers round in value.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF
ROUNDINGS = ("nearest", "stochastic")
MIDDLE = 2**15
"""The number of 16 bits that rounds to nearest, where a formula needs one in place of random numbers."""


def mix64(*words: int) -> int:
    """Hash integers (a seed, then the names of a stream) to 64 well-mixed bits.

    Order matters; negative integers count modulo 2^64.

    >>> mix64(0, 1) != mix64(1, 0)
    True
    """
    state = 0
    for word in words:
        state = (state ^ (word & MASK64)) + 0x9E3779B97F4A7C15 & MASK64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK64
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK64
        state ^= state >> 31
    return state


def key_tensor(key: int, device: torch.device | str = "cpu") -> Tensor:
    """A 64-bit key as a tensor, which `random_words` takes too: a compiled graph then serves every key."""
    return torch.tensor([(key & _MASK32) | 1, key >> 32 & _MASK32], dtype=torch.int64, device=device)


def random_words(count: int, key: int | Tensor, device: torch.device | str = "cpu", start: int = 0) -> Tensor:
    """`count` uniform 32-bit words of the stream named by the 64-bit `key`, from its element `start` on.

    Returns an int64 tensor of shape (count,) with values in [0, 2^32).
    """
    index = torch.arange(start, start + count, dtype=torch.int64, device=device)
    return _words(index, key).to(torch.int64).bitwise_and_(_MASK32)


def _words(index: Tensor, key: int | Tensor) -> Tensor:
    """The words of the elements `index`, int64, of a stream, modulo 2^32. Overwrites `index`.

    torch has no unsigned arithmetic of 32 bits. On a CPU the words are int64 and masked, because torch.compile writes C++,
    in which the overflow of an int32 is undefined. On other devices an int32 wraps, and takes half of the memory.
    """
    words = index if index.device.type == "cpu" else index.to(torch.int32)
    if isinstance(key, Tensor):
        multiplier, offset = key.to(words.dtype).unbind()
    else:
        multiplier, offset = (_as(words.dtype, word) for word in ((key & _MASK32) | 1, key >> 32 & _MASK32))  # type: ignore[assignment]
    return _fmix32_(_masked_(words.mul_(multiplier).add_(offset)))


def _as(dtype: torch.dtype, word: int) -> int:
    """The number of that dtype with the lowest 32 bits of `word`."""
    return word - 2**32 if dtype == torch.int32 and word >= 2**31 else word


def _masked_(h: Tensor) -> Tensor:
    return h if h.dtype == torch.int32 else h.bitwise_and_(_MASK32)


def _shifted(h: Tensor, bits: int) -> Tensor:
    """h >> bits as of unsigned numbers: zeros are shifted in."""
    return (h >> bits).bitwise_and_(_MASK32 >> bits) if h.dtype == torch.int32 else h >> bits


def _fmix32_(h: Tensor) -> Tensor:
    _masked_(h.bitwise_xor_(_shifted(h, 16)).mul_(_as(h.dtype, 0x85EBCA6B)))
    _masked_(h.bitwise_xor_(_shifted(h, 13)).mul_(_as(h.dtype, 0xC2B2AE35)))
    return h.bitwise_xor_(_shifted(h, 16))


def random16(count: int, key: int | Tensor, start: int | Tensor = 0, device: torch.device | str = "cpu") -> Tensor:
    """`count` uniform integers 0 .. 2^16 - 1, int32, of the stream `key` from its element `start` on.

    A word gives two numbers. Of each 32 elements, the first 16 have the lower 16 bits of 16 words and the others the upper ones,
    so that one shift serves all elements of a vector register.

    >>> random16(50, key=7)[30:].equal(random16(20, key=7, start=30))
    True
    """
    element = torch.arange(count, dtype=torch.int64, device=device) + start
    words = _words((element >> 5) * 16 + (element & 15), key)
    return (words >> (element & 16).to(words.dtype) & 0xFFFF).to(torch.int32)


def content_key(x: Tensor, seed: int) -> Tensor:
    """A key, as `key_tensor` has it, that is a pure function of the seed and of every bit of `x`.

    Quantizers name their streams by it, because they know no step. Different tensors draw different bits; the same tensor draws
    the same bits when it is computed again, in a checkpointed backward pass, in a resumed run or on other threads. The key does
    not depend on the order of summation, because integer sums have none.

    Args:
        x: float32 or float64, any shape.
        seed: any integer.

    >>> x = torch.tensor([1.0, 2.0])
    >>> bool((content_key(x, 0) == content_key(x.clone(), 0)).all()), bool((content_key(x, 0) == content_key(x, 1)).all())
    (True, False)
    """
    total = x.detach().reshape(-1).view(torch.int32).sum(dtype=torch.int64)
    words = mix64(seed)
    first = _fmix32_((total & _MASK32) ^ (words & _MASK32))
    second = _fmix32_((total >> 32 & _MASK32) ^ first ^ words >> 32)
    return torch.stack([first | 1, second])


def random_bools(count: int, key: int | Tensor, device: torch.device | str = "cpu", start: int = 0) -> Tensor:
    """`count` fair random bools of the stream `key`, flat: the top bits of its `random_words` from `start` on.

    >>> random_bools(8, key=7).tolist()
    [False, False, True, True, False, True, False, True]
    """
    return random_words(count, key, device, start) >= 2**31


def uniform(
    count: int,
    key: int | Tensor,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    start: int = 0,
) -> Tensor:
    """`count` numbers uniform on (0, 1], multiples of 2^-24, exact in float32 and float64.

    No number is 0, so that ``u < p`` is never true where p is 0 or below 2^-24.

    >>> bool(((u := uniform(1000, key=7)) > 0).all() and (u <= 1).all())
    True
    """
    return ((random_words(count, key, device, start) >> 8) + 1).to(dtype).mul_(2.0**-24)


def key_from_generator(generator: torch.Generator | None) -> int:
    """Draw a 63-bit key from `generator` (None: torch's default generator, which `torch.manual_seed` seeds)."""
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64, device=device).item())


def check_rounding(rounding: str) -> str:
    """Return `rounding` if it is one of `ROUNDINGS`, else raise ValueError."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(map(repr, ROUNDINGS))}, got {rounding!r}")
    return rounding


def drawn(
    rounding: str, count: int, key: int | Tensor, start: int | Tensor = 0, device: torch.device | str = "cpu"
) -> Tensor | None:
    """The random numbers that a rounding needs: None for "nearest", for "stochastic" those of `random16`.

    >>> drawn("nearest", 3, key=7), drawn("stochastic", 3, key=7).dtype
    (None, torch.int32)
    """
    return random16(count, key, start, device) if check_rounding(rounding) == "stochastic" else None
