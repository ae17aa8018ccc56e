"""The operations of the native library on tensors. Callers ask `serves` first; all arguments are checked by them."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from ..log_format import LogFormat
from ..random_bits import MASK64
from ..ratios import spacing
from .library import library, plain, serves

__all__ = ["FLOATS", "Codes", "decode", "encode", "pack", "plain", "product", "serves", "unpack", "unpack_codes"]

_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
_DOUBLE, _WORD = ctypes.c_double, ctypes.c_uint64
_SIGNATURES = {
    "lognet_decode": [_POINTER, _POINTER, _POINTER, _INT, _POINTER, _FLOAT, _LONG, _LONG, _LONG, _POINTER, _INT],
    "lognet_encode": [
        *(_POINTER, _INT, _DOUBLE, _INT, _POINTER, _POINTER, _DOUBLE, _DOUBLE, _POINTER, _WORD, _WORD, _LONG),
        *(_POINTER, _POINTER, _POINTER, _INT),
    ],
    "lognet_pack": [_POINTER, _INT, _INT, _INT, _LONG, _POINTER, _INT],
    "lognet_product": [
        *[_POINTER] * 3,
        _INT,
        _POINTER,
        _FLOAT,
        _INT,
        _LONG,
        _LONG,
        _POINTER,
        _LONG,
        *[_POINTER] * 4,
        _INT,
        _POINTER,
        _FLOAT,
        _POINTER,
        _INT,
    ],
    "lognet_unpack": [_POINTER, _INT, _LONG, _LONG, _LONG, _POINTER, _INT],
    "lognet_unpack_codes": [_POINTER, _POINTER, _INT, _LONG, _LONG, _LONG, _POINTER, _INT],
}
FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
"""What `encode` reads."""
Codes = tuple[Tensor, Tensor | None, Tensor, int, Tensor, Tensor]
"""low, high, sign, bits, rungs and scale, as `decode` takes them."""
_NO_BIAS = (None, None, None, None, 0, None, 0.0)


class Spacing(ctypes.Structure):
    """The constants of `lognet.quant.ratios.spacing`, in C++."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("octave", "q0", "q1", "q2", "q3", "zero")),
        *((name, ctypes.c_int32) for name in ("bow0", "bow1", "shift")),
    )

    @classmethod
    def of(cls, base_precision: float) -> Spacing:
        s = spacing(base_precision)
        return cls(s.octave, s.q0, s.q1, s.q2, s.q3, s.zero, *s.bow, s.shift)


@cache
def function(name: str) -> ctypes._CFuncPtr:  # type: ignore[name-defined]
    """A function of the library with its argument types, which `library` has found before."""
    found = getattr(library(), name)
    found.argtypes, found.restype = _SIGNATURES[name], None
    return found


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def decode(
    low: Tensor,
    high: Tensor | None,
    sign: Tensor,
    bits: int,
    rungs: Tensor,
    scale: Tensor,
    total: int,
    start: int = 0,
    count: int | None = None,
) -> Tensor:
    """Values of the weights `start` .. `start + count - 1`, flat float32.

    Args:
        low, high, sign: the planes (see `lognet.quant.bitpack`) of `total` weights.
        rungs: float32, the values of rungs 0 .. 2^bits - 1 in units of the scale, at least.
        scale: 0-dim float32.
        start: a multiple of 8.
        count: None for all from `start` on.
    """
    count = total - start if count is None else count
    out = torch.empty(count, dtype=torch.float32)
    function("lognet_decode")(
        low.data_ptr(), pointer(high), sign.data_ptr(), bits, rungs.data_ptr(), scale.item(), total, start, count,
        out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


def encode(
    values: Tensor,
    scale: Tensor,
    ladder: LogFormat,
    rounding: str,
    key: int,
    coin_key: int,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The planes low, high and sign of finite `values`: `LogFormat.encode` of their magnitudes, packed.

    Args:
        values: of a dtype in `FLOATS`, any shape.
        scale: 0-dim float32.
        rounding, key: as in `LogFormat.encode`.
        coin_key: the stream that zeros draw their signs from, as `lognet.quant.random_bits.random_bools` does.
    """
    bits, count = ladder.bits, values.numel()
    rungs, drops = ladder.unit_rungs(torch.float64, scale), None
    least = most = ladder.nearest_drop
    if rounding == "stochastic":
        (least, most), drops = ladder.drop_bounds, ladder.unit_drops(scale)
    low, sign = _stream(count, min(bits, 8)), _stream(count, 1)
    high = _stream(count, bits - 8) if bits > 8 else None
    spacing = Spacing.of(ladder.base_precision)
    function("lognet_encode")(
        values.data_ptr(), FLOATS[values.dtype], scale.item(), bits, rungs.data_ptr(), ctypes.addressof(spacing), least,
        most, pointer(drops), key & MASK64, coin_key, count, low.data_ptr(), pointer(high), sign.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return low, high, sign


def pack(values: Tensor, width: int, byte: int = 0) -> Tensor:
    """A stream of `width` bits, at most 8, of each of these integers: of their byte number `byte`, from the lowest."""
    out = _stream(values.numel(), width)
    function("lognet_pack")(
        values.data_ptr(), values.element_size(), byte, width, values.numel(), out.data_ptr(), torch.get_num_threads()
    )
    return out


def _stream(count: int, width: int) -> Tensor:
    return torch.empty((count * width + 7) // 8, dtype=torch.uint8)


def unpack(stream: Tensor, width: int, total: int, start: int = 0, count: int | None = None) -> Tensor:
    """Values `start` .. of a packed stream of `total` ones, flat uint8; `start` a multiple of 8."""
    count = total - start if count is None else count
    out = torch.empty(count, dtype=torch.uint8)
    threads = torch.get_num_threads()
    function("lognet_unpack")(stream.data_ptr(), width, total, start, count, out.data_ptr(), threads)
    return out


def unpack_codes(
    low: Tensor, high: Tensor | None, bits: int, total: int, start: int = 0, count: int | None = None
) -> Tensor:
    """Codes `start` .. of the planes of `total` weights, flat int32; `start` a multiple of 8."""
    count = total - start if count is None else count
    out = torch.empty(count, dtype=torch.int32)
    threads = torch.get_num_threads()
    function("lognet_unpack_codes")(low.data_ptr(), pointer(high), bits, total, start, count, out.data_ptr(), threads)
    return out


def product(
    low: Tensor,
    high: Tensor | None,
    sign: Tensor,
    bits: int,
    rungs: Tensor,
    scale: Tensor,
    octaves: bool,
    shape: tuple[int, int],
    x: Tensor,
    batch: int,
    bias: Tensor | Codes | None = None,
) -> Tensor:
    """x times the transpose of the weight that the planes hold, float32 (batch, rows): no weight is written down.

    Equal to ``x @ decoded.T`` but for roundings: those of the sums, in an order that depends on the columns alone, and
    at most two more a weight. So an entry is off by at most ``(columns + 8) * 2^-24`` of the sum of the products' sizes.

    Args:
        low, high, sign, bits, rungs, scale: as for `decode`.
        octaves: whether the ladder has 2^(bits - 3) rungs to the octave, for which there is a short cut.
        shape: (rows, columns) of the weight.
        x: float32, contiguous, of `batch` times `columns` numbers in any shape.
        bias: what to add to every row of the result, (rows,): float32 and contiguous, or codes to decode.
    """
    rows, columns = shape
    added: tuple[int | float | None, ...] = _NO_BIAS
    if isinstance(bias, Tensor):
        added = (bias.data_ptr(), *_NO_BIAS[1:])
    elif bias is not None:
        b_low, b_high, b_sign, b_bits, b_rungs, b_scale = bias
        planes = (b_low.data_ptr(), pointer(b_high), b_sign.data_ptr())
        added = (None, *planes, b_bits, b_rungs.data_ptr(), b_scale.item())
    out = torch.empty(batch, rows, dtype=torch.float32)
    function("lognet_product")(
        low.data_ptr(), pointer(high), sign.data_ptr(), bits, rungs.data_ptr(), scale.item(), octaves, rows, columns,
        x.data_ptr(), batch, *added, out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out
