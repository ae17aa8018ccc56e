"""The operations on weights in codes: from floats to planes, back to floats, and products straight from the planes.

A weight is ``sign * scale * exp(-k * base_precision)`` (see `lognet.quant.log_format`). Its planes are uint8: low and high hold k
(see `lognet.quant.kernels.bitpack`), sign one bit for each weight, 1 for negative. All operations take a weight as the same six
arguments in a row: low, high, sign, scale (0-dim float32), bits and base_precision.

On the CPU, graphs of torch.compile call ``lognet::decode`` and ``lognet::linear``, because Inductor's loop over the plain
operations is many times slower than the kernel. A program of torch.export holds plain operations only, so that it runs where
lognet is not installed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..log_format import PIECE, LogFormat, in_pieces
from ..random_bits import drawn, mix64, random_bools
from .bitpack import pack, pack_codes, unpack, unpack_codes
from .dispatch import operation

Codes = tuple[Tensor, Tensor | None, Tensor, Tensor, int, float]
"""low, high, sign, scale, bits, base_precision."""
_CODES = "Tensor low, Tensor? high, Tensor sign, Tensor scale, int bits, float base_precision"
_LADDERS: dict[tuple[int, float], LogFormat] = {}


def ladder(bits: int, base_precision: float) -> LogFormat:
    """`LogFormat`, checked once: to torch.compile it is a constant that is found in a global."""
    if (bits, base_precision) not in _LADDERS:
        _LADDERS[bits, base_precision] = LogFormat(bits, base_precision)
    return _LADDERS[bits, base_precision]


@operation(tensors=2)
def encode(
    values: Tensor, scale: Tensor, bits: int, base_precision: float, rounding: str, key: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The planes low, high and sign of finite values: `LogFormat.encode` of their magnitudes, and `signs_of` them, packed.

    Args:
        values: floating, any shape.
        scale: 0-dim float32, sigma*.
        rounding: "nearest" or "stochastic".
        key: names the streams of random bits, of stochastic rounding and of the signs of zeros.
    """
    format, pieces = ladder(bits, base_precision), []
    for i, part in enumerate(in_pieces(values)):
        start = i * PIECE
        rungs = format.encode(part.abs(), scale, drawn(rounding, part.numel(), key, start, part.device))
        pieces.append((*pack_codes(rungs, bits), pack(signs_of(part, key, start), 1)))
    low, high, sign = ([plane for plane in planes if plane is not None] for planes in zip(*pieces, strict=True))
    return torch.cat(low), torch.cat(high) if high else None, torch.cat(sign)


def signs_of(values: Tensor, key: int = 0, start: int = 0) -> Tensor:
    """True where negative. The ladder has no zero, so zeros draw a sign from a stream of `key`, from its element `start` on."""
    zero, negative = values == 0, values < 0
    if bool(zero.any()):
        random = random_bools(values.numel(), mix64(key, 1), values.device, start).view(values.shape)
        negative = torch.where(zero, random, negative)
    return negative


@operation(
    tensors=4,
    schema=f"({_CODES}, int total, int start, int count) -> Tensor",
    fake=lambda low, *rest: low.new_empty(rest[-1], dtype=torch.float32),
)
def decode(
    low: Tensor,
    high: Tensor | None,
    sign: Tensor,
    scale: Tensor,
    bits: int,
    base_precision: float,
    total: int,
    start: int,
    count: int,
) -> Tensor:
    """The values of the weights `start` .. `start + count - 1` of `total`, flat float32; `start` is a multiple of 8."""
    exponent, negative = unpack_codes(low, high, bits, count, start), unpack(sign, 1, count, start).bool()
    return ladder(bits, base_precision).decode(exponent, negative, scale, torch.float32)


@operation(
    tensors=5,
    schema=f"(Tensor x, {_CODES}, int out_features) -> Tensor",
    fake=lambda x, *rest: x.new_empty(*x.shape[:-1], rest[-1]),
)
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
    """``x @ weight.T + bias``, float32, (*, out_features).

    A back end's differs by roundings: those of its sums, and at most two more for each weight. So an entry is off by at most
    ``(columns + 8) * 2^-24`` of the sum of the products' magnitudes.

    Args:
        x: float32, (*, in_features).
        low, high, sign, scale, bits, base_precision: the weight, (out_features, in_features).
        out_features: the number of the weight's rows.
        bias: (out_features,), float32, or a weight in codes. The operator takes none: a graph adds it to what comes next.
    """
    in_features = x.shape[-1]
    count = out_features * in_features
    weight = decode(low, high, sign, scale, bits, base_precision, count, 0, count).view(out_features, in_features)
    if bias is None:
        return x @ weight.T
    return x @ weight.T + (bias if isinstance(bias, Tensor) else decode(*bias, out_features, 0, out_features))
