"""Random bits that are a pure function of (seed, stream, element index).

Replicas of a model, resumed runs and every thread count must draw the same bits, so nothing here has state: a
64-bit mix of the seed and the stream names (step, parameter index, ...) gives one odd multiplier and one offset,
and each element hashes its own index with them::

    word_i = fmix32(multiplier * i + offset  mod 2^32)

`fmix32` is the public-domain finaliser of MurmurHash3 (A. Appleby): two multiplications and three shifts, which a
vector unit does in a few cycles for eight weights at once. The scalar mix is SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF


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
    return _words(index.to(torch.int32), key).to(torch.int64).bitwise_and_(_MASK32)


def _words(index: Tensor, key: int | Tensor) -> Tensor:
    """The words of the elements `index` of a stream, modulo 2^32, as int32; overwrites `index`.

    torch has no unsigned arithmetic of 32 bits, but sums, products and lower bits are those of signed numbers, which wrap.
    """
    if isinstance(key, Tensor):
        multiplier, offset = key.to(torch.int32).unbind()
    else:
        multiplier, offset = _signed((key & _MASK32) | 1), _signed(key >> 32 & _MASK32)  # type: ignore[assignment]
    return _fmix32_(index.mul_(multiplier).add_(offset))


def _signed(word: int) -> int:
    """The signed number with the bits of an unsigned one of 32 bits."""
    return word - 2**32 if word >= 2**31 else word


def _fmix32_(h: Tensor) -> Tensor:
    h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF)).mul_(_signed(0x85EBCA6B))
    h.bitwise_xor_((h >> 13).bitwise_and_(0x7FFFF)).mul_(_signed(0xC2B2AE35))
    return h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF))


def halves(count: int, key: int | Tensor, start: int | Tensor = 0, device: torch.device | str = "cpu") -> Tensor:
    """`count` uniform integers 0 .. 2^16 - 1, int32, of the stream `key` from its element `start` on.

    A word serves two elements. Of each 32, the first 16 have the low halves of 16 words and the others the high ones, so
    that the elements of a vector need one shift.

    >>> halves(50, key=7)[30:].equal(halves(20, key=7, start=30))
    True
    """
    wide = isinstance(start, Tensor) or start + count > 2**31
    element = torch.arange(count, dtype=torch.int64 if wide else torch.int32, device=device) + start
    words = _words(((element >> 5) * 16 + (element & 15)).to(torch.int32), key)
    return words >> (element & 16).to(torch.int32) & 0xFFFF


def content_key(x: Tensor, seed: int) -> Tensor:
    """A key, as `key_tensor` has it, that is a pure function of the seed and of every bit of `x`.

    For whoever has no step to name a stream by: another tensor draws other bits, the same tensor (computed again in a
    checkpointed backward pass, in a resumed run, on other threads) draws the same. Integer sums have no order, so
    nothing depends on how the sum is cut up.

    Args:
        x: float32 or float64, any shape.
        seed: any integer.

    >>> x = torch.tensor([1.0, 2.0])
    >>> bool((content_key(x, 0) == content_key(x.clone(), 0)).all()), bool((content_key(x, 0) == content_key(x, 1)).all())
    (True, False)
    """
    total = x.detach().reshape(-1).view(torch.int32).sum(dtype=torch.int64)
    words = mix64(seed)
    first = _fmix32_(total.to(torch.int32) ^ _signed(words & _MASK32))
    second = _fmix32_((total >> 32).to(torch.int32) ^ first ^ _signed(words >> 32))
    return torch.stack([first | 1, second]).to(torch.int64).bitwise_and_(_MASK32)


def coins(count: int, key: int | Tensor, device: torch.device | str = "cpu", start: int = 0) -> Tensor:
    """`count` fair coins of the stream `key`, as a flat bool tensor: the top bits of its `random_words` from `start` on.

    >>> coins(8, key=7).tolist()
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

    None is 0, so that ``u < p`` is never true where p is 0 or vanishing.

    >>> bool(((u := uniform(1000, key=7)) > 0).all() and (u <= 1).all())
    True
    """
    return ((random_words(count, key, device, start) >> 8) + 1).to(dtype).mul_(2.0**-24)


def key_from_generator(generator: torch.Generator | None) -> int:
    """Draw a 63-bit key from `generator` (None: torch's default generator, which `torch.manual_seed` seeds)."""
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64, device=device).item())
