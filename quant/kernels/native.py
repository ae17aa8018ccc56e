"""The back end of the CPU: the native library's operations on codes.

Each function computes the operation of its name (see `lognet.quant.kernels.codes` and
`lognet.quant.kernels.bitpack`); the arguments are checked by callers, and `lognet.quant.kernels.dispatch` sees that
the tensors are contiguous.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache

import torch
from torch import Tensor

from ..random_bits import MASK64, mix64
from ..ratios import spacing
from ..tracing import is_eager
from .bitpack import check_start, packed_bytes
from .codes import Codes, ladder
from .dispatch import PLAIN, BackEnd
from .library import library

back_end = BackEnd("cpu", ready=lambda: library() is not None, in_graphs=True)

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
        *(_POINTER, _POINTER, _POINTER, _INT, _POINTER, _FLOAT, _INT, _LONG, _LONG, _POINTER, _LONG),
        *(_POINTER, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _FLOAT, _POINTER, _INT),
    ],
    "lognet_unpack": [_POINTER, _INT, _LONG, _LONG, _LONG, _POINTER, _INT],
    "lognet_unpack_codes": [_POINTER, _POINTER, _INT, _LONG, _LONG, _LONG, _POINTER, _INT],
}
FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
"""The dtypes that `encode` reads."""
_NO_BIAS = (None, None, None, None, 0, None, 0.0)


class Spacing(ctypes.Structure):
    """The constants of `lognet.quant.ratios.spacing`, in C++."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("octave", "q0", "q1", "q2", "q3", "zero")),
        *((name, ctypes.c_int32) for name in ("curve0", "curve1", "shift")),
    )

    @classmethod
    def of(cls, base_precision: float) -> Spacing:
        s = spacing(base_precision)
        return cls(s.octave, s.q0, s.q1, s.q2, s.q3, s.zero, *s.curve, s.shift)


@cache
def function(name: str) -> ctypes._CFuncPtr:  # type: ignore[name-defined]
    """A function of the library with its argument types, which `library` has found before."""
    found = getattr(library(), name)
    found.argtypes, found.restype = _SIGNATURES[name], None
    return found


def ready() -> bool:
    """Whether the library's functions can be called now: it is there and in use, and nothing is traced."""
    return is_eager() and library() is not None


def plain(tensor: Tensor) -> bool:
    """Whether this is a contiguous CPU tensor with memory of its own."""
    return type(tensor) in PLAIN and tensor.is_cpu and tensor.is_contiguous()


@lru_cache(maxsize=64)
def _rungs(bits: int, base_precision: float) -> Tensor:
    return ladder(bits, base_precision).unit_rungs(torch.float32, torch.empty(0))


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@back_end.computes
def decode(
    low: Tensor, high: Tensor | None, sign: Tensor, scale: Tensor, bits: int, base_precision: float, *window: int
) -> Tensor:
    rungs, out = _rungs(bits, base_precision), torch.empty(window[-1], dtype=torch.float32)
    function("lognet_decode")(
        low.data_ptr(), pointer(high), sign.data_ptr(), bits, rungs.data_ptr(), scale.item(), *window, out.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return out


@back_end.computes
def encode(
    values: Tensor, scale: Tensor, bits: int, base_precision: float, rounding: str, key: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    if values.dtype not in FLOATS:
        return NotImplemented
    format, count = ladder(bits, base_precision), values.numel()
    rungs, factors = format.unit_rungs(torch.float64, scale), None
    least = most = format.nearest_factor
    if rounding == "stochastic":
        (least, most), factors = format.factor_bounds, format.rounding_factors(scale)
    low, sign = _stream(count, min(bits, 8)), _stream(count, 1)
    high = _stream(count, bits - 8) if bits > 8 else None
    spacing = Spacing.of(base_precision)
    function("lognet_encode")(
        values.data_ptr(), FLOATS[values.dtype], scale.item(), bits, rungs.data_ptr(), ctypes.addressof(spacing), least,
        most, pointer(factors), key & MASK64, mix64(key, 1), count, low.data_ptr(), pointer(high), sign.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return low, high, sign


@back_end.computes
def pack(values: Tensor, width: int) -> Tensor:
    return _pack(values, width, 0)


@back_end.computes
def pack_codes(codes: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    return _pack(codes, min(bits, 8), 0), _pack(codes, bits - 8, 1) if bits > 8 else None


def _pack(values: Tensor, width: int, byte: int) -> Tensor:
    """A stream of the lowest `width` bits, at most 8, of byte number `byte` of each of these integers."""
    out = _stream(values.numel(), width)
    function("lognet_pack")(
        values.data_ptr(), values.element_size(), byte, width, values.numel(), out.data_ptr(), torch.get_num_threads()
    )
    return out


def _stream(count: int, width: int) -> Tensor:
    return torch.empty(packed_bytes(count, width), dtype=torch.uint8)


@back_end.computes
def unpack(stream: Tensor, width: int, count: int, start: int = 0) -> Tensor:
    check_start(start)
    out = torch.empty(count, dtype=torch.uint8)
    threads = torch.get_num_threads()
    function("lognet_unpack")(stream.data_ptr(), width, start + count, start, count, out.data_ptr(), threads)
    return out


@back_end.computes
def unpack_codes(low: Tensor, high: Tensor | None, bits: int, count: int, start: int = 0) -> Tensor:
    check_start(start)
    out = torch.empty(count, dtype=torch.int32)
    end, threads = start + count, torch.get_num_threads()
    function("lognet_unpack_codes")(low.data_ptr(), pointer(high), bits, end, start, count, out.data_ptr(), threads)
    return out


@back_end.computes
def linear(
    x: Tensor,
    low: Tensor,
    high: Tensor | None,
    sign: Tensor,
    scale: Tensor,
    bits: int,
    base_precision: float,
    out_features: int,
    bias: Tensor | Codes | None = None,
) -> Tensor:
    """The order of its sums depends on the number of columns alone. A ladder of eight octaves has a shorter way."""
    *leading, columns = x.shape
    added: tuple[int | float | None, ...] = _NO_BIAS
    if isinstance(bias, Tensor):
        added = (bias.data_ptr(), *_NO_BIAS[1:])
    elif bias is not None:
        b_low, b_high, b_sign, b_scale, b_bits, b_precision = bias
        b_rungs, planes = _rungs(b_bits, b_precision), (b_low.data_ptr(), pointer(b_high), b_sign.data_ptr())
        added = (None, *planes, b_bits, b_rungs.data_ptr(), b_scale.item())
    rungs, octaves = _rungs(bits, base_precision), ladder(bits, base_precision).by_octaves
    out = torch.empty(*leading, out_features, dtype=torch.float32)
    function("lognet_product")(
        low.data_ptr(), pointer(high), sign.data_ptr(), bits, rungs.data_ptr(), scale.item(), octaves,
        out_features, columns, x.data_ptr(), math.prod(leading), *added, out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out
