"""The bits behind LogTensors: byte planes on one ladder, shared by every view of them as a torch storage is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..quant import operators
from ..quant.bitpack import pack, pack_codes, packed_bytes, unpack, unpack_codes
from ..quant.kernels import native
from ..quant.log_format import PIECE, LogFormat, in_pieces, largest_magnitude
from ..quant.random_bits import mix64, random_bools

_LADDERS: dict[str, LogFormat] = {}


class LogStorage:
    """`count` weights of one ladder, in flat planes.

    Attributes:
        format: the ladder (bits and base precision).
        count: number of weights.
        low, high: uint8 planes of the exponents (see `lognet.quant.bitpack`); `high` is None up to 8 bits.
        sign: uint8 plane, one bit a weight, 1 for negative.
        scale: 0-dim float32, the paper's sigma*.
        keep: None, or a uint8 plane with one bit for every `group` consecutive weights, 0 where these are pruned.
            The ladder has no zero, so exact zeros (a padding row, a pruned tuple) need a bit of their own.
        group: weights under one bit of `keep`.
        room: weights that a process sends to others: count, or more where its part is smaller than theirs.
        padded: what stands at the end is padding, which the next view may cut off.
    """

    room: int = 0
    padded: bool = False

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
        self.room = count

    @property
    def format(self) -> LogFormat:
        """The ladder, looked up by a name. torch.compile makes a symbol of a number that is another one than in the call before,
        a size of tables or a shift of bits, and a graph that compilers choke on; what is found in a global is a constant."""
        return _LADDERS[self._ladder]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "format": self.format}  # another process may not have met the ladder

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
        """Encode flat finite floats; zeros draw their sign, and stochastic rounding its bits, from the stream `key`."""
        if values.dtype in native.FLOATS and native.serves(values, scale):
            planes = native.encode(values, scale, format, rounding, key, mix64(key, 1))
            return cls(format, values.numel(), *planes, scale)
        pieces = []
        for i, part in enumerate(in_pieces(values)):
            exponent = format.encode(part.abs(), scale, rounding, key, i * PIECE)
            pieces.append((*pack_codes(exponent, format.bits), pack(signs_of(part, key, i * PIECE), 1)))
        low, high, sign = ([plane for plane in planes if plane is not None] for planes in zip(*pieces, strict=True))
        return cls(format, values.numel(), torch.cat(low), torch.cat(high) if high else None, torch.cat(sign), scale)

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
        storage.room, storage.padded = self.room, self.padded
        return storage

    @property
    def nbytes(self) -> int:
        """Bytes of the storages that the planes hold."""
        return sum(plane.untyped_storage().nbytes() for plane in self.planes().values())

    # Reading: flat windows, because planes have byte boundaries only at every eighth weight.

    def exponent(self, start: int = 0, count: int | None = None) -> Tensor:
        """Rungs of the window as flat int32; `start` must be a multiple of 8."""
        return unpack_codes(self.low, self.high, self.format.bits, self.count if count is None else count, start)

    def negative(self, start: int = 0, count: int | None = None) -> Tensor:
        """Signs of the window as flat bool, True for negative; `start` must be a multiple of 8."""
        return unpack(self.sign[start // 8 :], 1, self.count if count is None else count).bool()

    def kept(self, start: int = 0, count: int | None = None) -> Tensor | None:
        """False where the weights of the window are pruned to zero; None if none are."""
        if self.keep is None:
            return None
        groups = unpack(self.keep, 1, self.count // self.group).bool()
        return groups.repeat_interleave(self.group)[start : start + (self.count if count is None else count)]

    def decode(self, dtype: torch.dtype, start: int = 0, count: int | None = None) -> Tensor:
        """Values of the window, flat, in `dtype`."""
        planes = (self.low, self.high, self.sign)
        if dtype != torch.float64 and native.serves(*planes, self.scale):
            rungs = self.format.unit_rungs(torch.float32, self.low)
            values = native.decode(*planes, self.format.bits, rungs, self.scale, self.count, start, count).to(dtype)
        elif dtype != torch.float64 and operators.wanted(self.low):
            n, format = self.count - start if count is None else count, self.format
            place = (format.bits, format.base_precision, self.count, start, n)
            values = operators.decode(*planes, self.scale, *place).to(dtype)
        else:
            values = self.format.decode(self.exponent(start, count), self.negative(start, count), self.scale, dtype)
        kept = self.kept(start, count)
        return values if kept is None else values.masked_fill_(~kept, 0)

    def decode_at(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Values of the weights at flat positions `index` (int64, any shape), touching no other."""
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

        Values equal to those held, in the dtype given, keep their codes, also where that dtype (bfloat16, say) is too
        coarse to tell these codes from their neighbours.
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
            self.keep, self.group = (
                (None if other.keep is None else other.keep.to(self.low.device).clone()),
                other.group,
            )
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

    # Travelling: between processes all planes go as one row of bytes.

    def _plane_bytes(self, name: str, count: int) -> int:
        """Bytes of the plane `name` of `count` weights."""
        if name == "scale":
            return self.scale.element_size()
        return packed_bytes(count // self.group, 1) if name == "keep" else packed_bytes(count, self._width(name))

    def _width(self, name: str) -> int:
        bits = self.format.bits
        return {"low": min(bits, 8), "high": bits - 8}.get(name, 1)

    def blank(self, count: int, row: int) -> LogStorage:
        """Room for `count` weights of the same ladder and scale, none of them pruned; whoever gets it may not need all.

        Args:
            count: a multiple of `row`.
            row: weights that stay together; a bit of the pruning stands for no more than these.
        """
        like = LogStorage.from_planes(self.format, self.count, self.planes(), math.gcd(self.group, row))
        planes = {"scale": self.scale.clone()}
        for name in self.planes().keys() - {"scale"}:
            planes[name] = self.low.new_full((like._plane_bytes(name, count),), 255 * (name == "keep"))
        storage = LogStorage.from_planes(self.format, count, planes, like.group)
        storage.padded = True
        return storage

    def beginning(self, count: int) -> LogStorage:
        """The first `count` weights, in the same memory, without the padding behind them."""
        planes = {name: plane[: self._plane_bytes(name, count)] for name, plane in self.planes().items() if plane.dim()}
        storage = LogStorage.from_planes(self.format, count, {**planes, "scale": self.scale}, self.group)
        storage.room = self.room
        return storage

    def to_bytes(self, room: int | None = None) -> Tensor:
        """All planes, one after the other, as flat uint8, each padded to the size that it has in `room` weights.

        Where there are no weights, no checkpoint has had any to load a scale with: the scale says nothing, NaN.
        """
        room = self.count if room is None else room
        row = self.low.new_zeros(sum(self._plane_bytes(name, room) for name in self.planes()))
        for name, part in self._parts(row.unsqueeze(0), room):
            plane = getattr(self, name).reshape(-1)
            if name == "scale" and self.count == 0:
                plane = torch.full_like(plane, math.nan)
            plane = plane.view(torch.uint8)
            part[0, : plane.numel()] = plane
        return row

    def take_bytes(self, row: Tensor) -> None:
        """Replace codes, signs, scale and pruning by those of a storage like this one, from its `to_bytes`."""
        for name, plane in self._parts(row.unsqueeze(0), self.count):
            own = getattr(self, name)
            own.copy_(plane[0].clone().view(own.dtype).view(own.shape))

    def _parts(self, rows: Tensor, room: int) -> Iterator[tuple[str, Tensor]]:
        """The columns of each plane in rows of `to_bytes`."""
        start = 0
        for name in self.planes():
            yield name, rows[:, start : (start := start + self._plane_bytes(name, room))]

    def joined(self, rows: Tensor, room: int) -> LogStorage:
        """The weights of several processes in one storage, from their `to_bytes`; this one is like each of theirs.

        Args:
            rows: uint8, (processes, bytes).
            room: that of `to_bytes`.

        Raises:
            ValueError: the processes have different scales.
        """
        planes = {name: self._join(name, part, room) for name, part in self._parts(rows, room)}
        return LogStorage.from_planes(self.format, room * len(rows), planes, self.group)

    def _join(self, name: str, rows: Tensor, room: int) -> Tensor:
        """One plane of the joined storage. Rows of whole bytes follow each other; others leave bits to be squeezed out."""
        if name == "scale":
            scales = rows.reshape(-1).clone().view(torch.float32)
            scale = scales.nan_to_num(-1).max()
            if bool(((scales != scale) & ~scales.isnan()).any()):
                raise ValueError(
                    f"the parts of one LogTensor have different scales on different processes: {scales.tolist()}. Start"
                    " every process from the same weights, by the same torch.manual_seed before the model is built or by"
                    " loading the same file, before it is wrapped and distributed"
                )
            return scale
        width, count = self._width(name), room // self.group if name == "keep" else room
        if count * width % 8 == 0:
            return rows.reshape(-1).clone()
        return pack(torch.cat([unpack(row, width, count) for row in rows]), width)


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


def signs_of(values: Tensor, key: int = 0, start: int = 0) -> Tensor:
    """True where negative; zeros, which the ladder does not have, draw their sign from the stream `key` from `start` on."""
    zero = values == 0
    negative = values < 0
    if bool(zero.any()):
        coin = random_bools(values.numel(), mix64(key, 1), values.device, start).view(values.shape)
        negative = torch.where(zero, coin, negative)
    return negative


def _field(plane: Tensor, index: Tensor, width: int) -> Tensor:
    """Values number `index` of a packed stream: at most two neighbouring bytes hold each."""
    if width == 8:
        return plane[index].to(torch.int32)
    bit = index * width
    byte = bit >> 3
    after = (byte + 1).clamp_(max=plane.numel() - 1)
    word = plane[byte].to(torch.int32) + (plane[after].to(torch.int32) << 8)
    return (word >> (bit & 7).to(torch.int32)) & (2**width - 1)
