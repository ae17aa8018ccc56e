"""The bits of LogTensors: byte planes on one ladder, which all views of a LogTensor share, as tensors share a torch storage."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..quant.kernels.bitpack import pack, pack_codes, unpack, unpack_codes
from ..quant.kernels.codes import Codes, decode, encode
from ..quant.log_format import LogFormat, in_pieces, largest_magnitude

_LADDERS: dict[str, LogFormat] = {}


class LogStorage:
    """`count` weights of one ladder, in flat planes.

    Attributes:
        format: the ladder (bits and base precision).
        count: number of weights.
        low, high: uint8 planes of the exponents (see `lognet.quant.kernels.bitpack`); `high` is None up to 8 bits.
        sign: uint8 plane, one bit a weight, 1 for negative.
        scale: 0-dim float32, the paper's sigma*.
        keep: None, or a uint8 plane with one bit for every `group` consecutive weights, 0 where these are pruned.
            The ladder has no zero, so exact zeros (a padding row, a pruned tuple) need a bit of their own.
        group: the number of weights for each bit of `keep`.
        padded_count: the number of weights that a process sends to others (see `lognet.tensor.wire`): count, or more where
            the parts of others are larger.
        has_padding: the last weights are padding, which the next view may leave out.
    """

    has_padding: bool = False

    def __init__(
        self,
        format: LogFormat,
        count: int,
        low: Tensor,
        high: Tensor | None,
        sign: Tensor,
        scale: Tensor,
        keep: Tensor | None = None,
        group: int = 1,
    ) -> None:
        self._ladder, self.count = repr(format), count
        _LADDERS.setdefault(self._ladder, format)
        self.low, self.high, self.sign, self.scale = low, high, sign, scale
        self.keep, self.group = keep, group
        self.padded_count = count

    @property
    def format(self) -> LogFormat:
        """The ladder, looked up by its name in a global, because that makes its numbers constants for torch.compile. An attribute
        that differs from call to call becomes a symbol, and compilers fail on tables and shifts of symbolic size."""
        return _LADDERS[self._ladder]

    @property
    def codes(self) -> Codes:
        """The arguments of the operations in `lognet.quant.kernels.codes` that say which weights these are."""
        format = _LADDERS[self._ladder]
        return self.low, self.high, self.sign, self.scale, format.bits, format.base_precision

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "format": self.format}  # another process may not know the ladder

    def __setstate__(self, state: dict[str, Any]) -> None:
        _LADDERS.setdefault(state["_ladder"], state.pop("format"))
        self.__dict__.update(state)

    @classmethod
    def from_codes(cls, format: LogFormat, exponent: Tensor, negative: Tensor, scale: Tensor) -> LogStorage:
        """Pack flat integer rungs and bool signs."""
        low, high = pack_codes(exponent, format.bits)
        return cls(format, exponent.numel(), low, high, pack(negative, 1), scale)

    @classmethod
    def from_values(cls, format: LogFormat, values: Tensor, scale: Tensor, rounding: str, key: int) -> LogStorage:
        """Encode flat finite floats; see `lognet.quant.kernels.codes.encode`."""
        planes = encode(values, scale, format.bits, format.base_precision, rounding, key)
        return cls(format, values.numel(), *planes, scale)

    @classmethod
    def from_planes(cls, format: LogFormat, count: int, planes: dict[str, Tensor], group: int) -> LogStorage:
        """The inverse of `planes`."""
        optional = {name: planes.get(name) for name in ("high", "keep")}
        return cls(format, count, planes["low"], sign=planes["sign"], scale=planes["scale"], group=group, **optional)

    def planes(self) -> dict[str, Tensor]:
        """The tensors held, by attribute name."""
        names = ("low", "high", "sign", "scale", "keep")
        return {name: plane for name in names if (plane := getattr(self, name)) is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> LogStorage:
        """A new storage with `function` (a clone, a move to another device) applied to every plane."""
        planes = {name: function(plane) for name, plane in self.planes().items()}
        storage = LogStorage.from_planes(self.format, self.count, planes, self.group)
        storage.padded_count, storage.has_padding = self.padded_count, self.has_padding
        return storage

    @property
    def nbytes(self) -> int:
        """Bytes of the storages that the planes hold."""
        return sum(plane.untyped_storage().nbytes() for plane in self.planes().values())

    # Reading: a window is flat, and `start` is a multiple of 8, where planes have byte boundaries. `count` is None up to the end.

    def _length(self, start: int, count: int | None) -> int:
        return self.count - start if count is None else count

    def exponent(self, start: int = 0, count: int | None = None) -> Tensor:
        """Rungs of the window as flat int32."""
        return unpack_codes(self.low, self.high, self.format.bits, self._length(start, count), start)

    def negative(self, start: int = 0, count: int | None = None) -> Tensor:
        """Signs of the window as flat bool, True for negative."""
        return unpack(self.sign, 1, self._length(start, count), start).bool()

    def kept(self, start: int = 0, count: int | None = None) -> Tensor | None:
        """False where the weights of the window are pruned to zero; None if none are."""
        if self.keep is None:
            return None
        groups = unpack(self.keep, 1, self.count // self.group).bool()
        return groups.repeat_interleave(self.group)[start : start + self._length(start, count)]

    def decode(self, dtype: torch.dtype, start: int = 0, count: int | None = None) -> Tensor:
        """Values of the window, flat, in `dtype`."""
        if dtype == torch.float64:
            values = self.format.decode(self.exponent(start, count), self.negative(start, count), self.scale, dtype)
        else:
            values = decode(*self.codes, self.count, start, self._length(start, count))
            values = values if dtype == torch.float32 else values.to(dtype)
        kept = self.kept(start, count)
        return values if kept is None else values.masked_fill_(~kept, 0)

    def decode_at(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Values of the weights at flat positions `index` (int64, any shape); no other weight is decoded."""
        bits = self.format.bits
        exponent = _field(self.low, index, min(bits, 8))
        if self.high is not None:
            exponent = exponent + (_field(self.high, index, bits - 8) << 8)
        values = self.format.decode(exponent, _field(self.sign, index, 1).bool(), self.scale, dtype)
        if self.keep is not None:
            values = values.masked_fill_(_field(self.keep, index // self.group, 1) == 0, 0)
        return values

    # Writing: in place, so that every view sees it.

    def write_codes(self, exponent: Tensor, negative: Tensor) -> None:
        """Replace all rungs and signs (flat, `count` of each); scale and pruning stay."""
        low, high = pack_codes(exponent, self.format.bits)
        self.low.copy_(low)
        if self.high is not None and high is not None:
            self.high.copy_(high)
        self.sign.copy_(pack(negative, 1))

    def write_values(self, values: Tensor) -> None:
        """Encode `count` flat floats at their nearest rungs; larger ones saturate at the scale, with a warning.

        Values that equal those held, in the dtype given, keep their codes, even where that dtype (bfloat16, say) cannot tell
        these codes from their neighbours.
        """
        values = values if values.is_floating_point() else values.to(torch.float32)
        largest = check_finite(values, "the values written to a LogTensor")
        top = self.scale * (1 + self.format.base_precision / 2)
        if largest > top and (beyond := int((values.abs() > top).sum())):
            warnings.warn(
                f"{beyond} of {self.count} values exceed scale={float(self.scale):.4g} and saturate there: a LogTensor"
                " keeps its scale when written in place. For another scale make a new one with LogTensor.from_float",
                stacklevel=3,
            )
        same = values == self.decode(values.dtype)
        new = LogStorage.from_values(self.format, values, self.scale, "nearest", 0)
        exponent = torch.where(same, self.exponent(), new.exponent())
        self.write_codes(exponent, torch.where(same, self.negative(), new.negative()))

    def write_kept(self, kept: Tensor, group: int) -> None:
        """Replace the pruning by flat bools, `count` of them; one bit stands for `group` weights if these agree."""
        groups = kept.view(-1, group)
        if not kept.is_meta and not bool((groups == groups[:, :1]).all()):
            groups, group = kept.view(-1, 1), 1
        self.keep, self.group = pack(groups[:, 0], 1), group

    def copy_(self, other: LogStorage) -> None:
        """Take over codes, signs, scale and pruning of a storage of the same ladder and count."""
        self.check_same_ladder(other)
        if self.keep is None or other.keep is None or self.group != other.group:
            self.keep = None if other.keep is None else other.keep.to(self.low.device).clone()
            self.group = other.group
        for name, plane in other.planes().items():
            getattr(self, name).copy_(plane)

    def check_same_ladder(self, other: LogStorage) -> None:
        """Raise ValueError if the codes of `other` mean something else here."""
        if other.format != self.format:
            raise ValueError(
                f"cannot copy a LogTensor of {describe(other.format)} into one of {describe(self.format)}: the ladders"
                " differ. Re-quantise explicitly, with lognet.requantize(model, bits=...) or by copying"
                " other.dequantize()"
            )


def describe(format: LogFormat) -> str:
    """The ladder in words, for messages."""
    return f"bits={format.bits}, base_precision={format.base_precision:.4g}"


def check_finite(x: Tensor, what: str) -> float:
    """Raise ValueError naming `what` if x holds NaN or infinity; return max |x|."""
    largest = largest_magnitude(x)
    if not math.isfinite(largest):
        bad = x.numel() - sum(int(torch.isfinite(part).sum()) for part in in_pieces(x))
        raise ValueError(
            f"{what} must be finite, but {bad} of {x.numel()} are NaN or infinite; remove or clip them first"
        )
    return largest


def _field(plane: Tensor, index: Tensor, width: int) -> Tensor:
    """The values number `index` of a packed stream, int32. Each lies in two neighbouring bytes at most."""
    if width == 8:
        return plane[index].to(torch.int32)
    bit = index * width
    byte = bit >> 3
    after = (byte + 1).clamp_(max=plane.numel() - 1)
    word = plane[byte].to(torch.int32) + (plane[after].to(torch.int32) << 8)
    return (word >> (bit & 7).to(torch.int32)) & (2**width - 1)


def contiguous_strides(size: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor of this size."""
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def read_weights(x: Tensor, read: Callable[..., Tensor]) -> Tensor:
    """The weights that x covers, contiguous and of x's shape.

    Args:
        x: only its shape, strides and offset are used.
        read: ``read(start, count)`` gives flat weights of the storage. It is called once. `start` is a multiple of 8,
            because packed planes have byte boundaries at every eighth weight.
    """
    if x.numel() == 0:
        return read(0, 0).view(x.shape)
    first = x.storage_offset()
    last = first + sum((length - 1) * step for length, step in zip(x.shape, x.stride(), strict=True))
    start = first // 8 * 8
    flat = read(start, last + 1 - start)
    return flat.as_strided(x.shape, x.stride(), flat.storage_offset() + first - start).contiguous()


def write_weights(x: Tensor, flat: Tensor, values: Tensor) -> Tensor:
    """Write values of x's shape to the weights that x covers in `flat`, which has every weight of the storage; returns it."""
    flat.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(values)
    return flat
