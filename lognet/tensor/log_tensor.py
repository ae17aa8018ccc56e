"""LogTensor: a tensor whose elements are a sign and a B-bit exponent, and which computes like the floats they stand for.

A LogTensor is to its `LogStorage` what a torch tensor is to its storage: a shape, strides and an offset over bits that
several tensors may share.

- A view (a transpose, a slice) is a LogTensor on the same bits: it copies nothing and writes through.
- Every other operation decodes its arguments and returns a dense tensor.
- A write in place decodes, computes, and encodes the result on the same ladder.

The exceptions have handlers, in the other files of this folder (`lognet.tensor.handlers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..quant.kernels import backend
from ..quant.kernels.bitpack import pack
from ..quant.kernels.sources import digest
from ..quant.log_format import LogFormat, check_positive
from ..quant.random_bits import check_rounding, key_from_generator
from .autograd import Dequantize, in_transform
from .handlers import FUNCTIONS, op_handler
from .storage import LogStorage, check_finite, contiguous_strides, read_weights, write_weights


class LogTensor(Tensor):
    """A tensor whose elements are ``sign * scale * exp(-k * base_precision)``, held in B + 1 bits each.

    Make one with `from_float` or `from_codes`. It reports a floating dtype (the dtype in which it decodes) and is
    differentiable: its gradients are dense tensors. `torch.nn.Parameter(LogTensor.from_float(x))` is a parameter.

    - Linear, convolution, embedding and matrix products keep codes for the backward pass, not decoded weights. Views
      (transpose, slices, reshapes of contiguous tensors) are LogTensors on the same bits. Any other operation decodes
      and gives a dense tensor.
    - A write in place (``copy_``, ``nn.init``, an optimizer of torch) encodes with nearest rounding. The ladder and its
      scale stay, and larger values saturate with a warning. Copying a LogTensor of the same ladder copies its codes
      and scale exactly. Copying one of another ladder raises ValueError.

    Args:
        storage: the packed bits, which several tensors may share. The constructor is for the library itself, which
            makes views with it.
        size: the shape, any.
        stride, offset: the layout over the storage, in weights. Default: contiguous, from the first weight on.
        dtype: the floating dtype in which it decodes.
        requires_grad: as in torch.

    Source: Bernstein et al. 2020, section 4.1 (`bits` is B, `scale` is sigma*, `base_precision` is eta_0).

    >>> w = LogTensor.from_float(torch.tensor([1.0, -0.5, 0.3]), bits=8)
    >>> w.exponent.tolist(), w.signs.tolist()
    ([0, 32, 56], [1, -1, 1])
    >>> w.dequantize()
    tensor([ 1.0000, -0.5000,  0.2973])
    """

    _storage: LogStorage
    is_whole: bool
    """Whether this covers all of its storage in order, rather than a part of it or in another order."""

    @staticmethod
    def __new__(
        cls,
        storage: LogStorage,
        size: torch.Size | tuple[int, ...],
        *,
        stride: tuple[int, ...] | None = None,
        offset: Any = 0,
        dtype: torch.dtype = torch.float32,
        requires_grad: bool = False,
    ) -> LogTensor:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            size,
            strides=contiguous_strides(size) if stride is None else stride,
            storage_offset=offset,
            dtype=dtype,
            device=storage.low.device,
            requires_grad=requires_grad,
        )
        self._storage = storage
        in_order = stride is None or tuple(stride) == contiguous_strides(size)
        self.is_whole = offset == 0 and math.prod(size) == storage.count and in_order
        return self

    # Making one

    @staticmethod
    def from_float(
        x: Tensor,
        bits: int = 8,
        base_precision: float | None = None,
        scale: float | Tensor | None = None,
        rounding: str = "nearest",
        generator: torch.Generator | None = None,
    ) -> LogTensor:
        """Quantise a floating tensor onto a ladder.

        Args:
            x: floating tensor, any shape. It is not changed, and no gradient flows to it.
            bits: B, bits of the exponent, 2 to 16 (the sign is one more).
            base_precision: eta_0, rung spacing in nats. Default: ``lognet.quant.default_base_precision(bits)``, for eight
                octaves from 7 bits on.
            scale: sigma*, the magnitude of rung 0. Default: max |x|. Larger values saturate at rung 0, values below
                the ladder at the last rung.
            rounding: "nearest" rung in log space, or "stochastic": floor(k + u), so that E[k] is exact.
            generator: source of the random bits of stochastic rounding and of the signs of zeros. Default: torch's
                default generator for stochastic rounding; a fixed seed for zeros under nearest rounding.

        Returns:
            A LogTensor of x's shape, dtype and device, contiguous. Zeros become the last rung with a random sign.

        Raises:
            TypeError: x is not a floating tensor, bits not an int.
            ValueError: NaN or infinity in x; bits, base_precision or scale out of bounds; all of x zero and no scale.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"x must have a floating dtype, got {x.dtype}; convert it first, for example x.float()")
        ladder = LogFormat(bits, base_precision)  # type: ignore[arg-type]
        check_rounding(rounding)
        values = (x.dequantize() if isinstance(x, LogTensor) else x).detach().reshape(-1)
        largest = check_finite(values, "x")
        top = _scale_tensor(ladder, _default_scale(values, largest) if scale is None else scale, values.device)
        key = 0 if generator is None and rounding == "nearest" else key_from_generator(generator)
        storage = LogStorage.from_values(ladder, values, top, rounding, key)
        return LogTensor(storage, x.shape, dtype=x.dtype)

    @staticmethod
    def from_codes(
        exponent: Tensor,
        signs: Tensor,
        bits: int,
        scale: float | Tensor,
        base_precision: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> LogTensor:
        """Build a LogTensor from its rungs (integers in 0 .. 2^bits - 1) and signs (+1 or -1) of one shape.

        Raises:
            ValueError: shapes differ, a rung is off the ladder, a sign is not +-1; bits, scale or base_precision out
                of bounds.

        >>> LogTensor.from_codes(torch.tensor([0, 3]), torch.tensor([1, -1]), bits=4, scale=2.0).dequantize()
        tensor([ 2., -1.])
        """
        ladder = LogFormat(bits, base_precision)  # type: ignore[arg-type]
        if exponent.shape != signs.shape:
            raise ValueError(f"exponent and signs must have one shape, got {exponent.shape} and {signs.shape}")
        if exponent.is_floating_point() or exponent.is_complex():
            raise TypeError(f"exponent must have an integer dtype, got {exponent.dtype}")
        if bool(((exponent < 0) | (exponent > ladder.last_rung)).any()):
            raise ValueError(f"exponent must lie in 0 .. {ladder.last_rung} at bits={bits}")
        if bool((signs.abs() != 1).any()):
            raise ValueError("signs must be +1 or -1")
        top = _scale_tensor(ladder, scale, exponent.device)
        storage = LogStorage.from_codes(ladder, exponent.reshape(-1), (signs < 0).reshape(-1), top)
        return LogTensor(storage, exponent.shape, dtype=dtype)

    # Reading it

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dense tensor of decoded values, in `dtype` (default: the reported dtype). Differentiable."""
        with torch._C.DisableTorchFunctionSubclass():  # each look at an attribute would call __torch_function__
            dtype = self.dtype if dtype is None else dtype
            if (torch.is_grad_enabled() and self.requires_grad) or in_transform():
                return Dequantize.apply(self, dtype)
            return self._read(partial(self._storage.decode, dtype))

    def _decode(self, dtype: torch.dtype) -> Tensor:
        """`dequantize` below autograd; other files call it as `lognet.tensor.floats.decode`."""
        with torch._C.DisableTorchFunctionSubclass():
            return self._read(partial(self._storage.decode, dtype))

    def _read(self, read: Callable[..., Tensor]) -> Tensor:
        """``read(start, count)``, a reading method of the storage, over the weights that this tensor covers."""
        return read().view(self.shape) if self.is_whole else read_weights(self, read)

    @property
    def format(self) -> LogFormat:
        """The ladder: bits and base precision."""
        return self._storage.format

    @property
    def bits(self) -> int:
        """B, bits of the exponent."""
        return self._storage.format.bits

    @property
    def base_precision(self) -> float:
        """eta_0, the spacing of the rungs in natural-log units."""
        return self._storage.format.base_precision

    @property
    def scale(self) -> Tensor:
        """sigma*, the magnitude of rung 0: a 0-dim float32 tensor."""
        return self._storage.scale

    @property
    def exponent(self) -> Tensor:
        """The rungs k, unpacked: int32, 0 .. 2^bits - 1, of this tensor's shape."""
        return self._read(self._storage.exponent)

    @property
    def signs(self) -> Tensor:
        """The signs, unpacked: int8, +1 or -1, of this tensor's shape."""
        return 1 - 2 * self.codes()[1].to(torch.int8)

    def codes(self) -> tuple[Tensor, Tensor]:
        """Rungs (int32) and negative signs (bool), unpacked, of this tensor's shape: what `write_codes_` takes."""
        return self.exponent, self._read(self._storage.negative)

    @property
    def mask(self) -> Tensor | None:
        """False where a weight is pruned to exactly zero (of this tensor's shape); None if none is."""
        return None if self._storage.keep is None else self._read(self._storage.kept)  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes that codes, signs, scale and mask take in memory; all views share them."""
        return self._storage.nbytes

    # Writing it

    @torch.no_grad()
    def write_codes_(self, exponent: Tensor, signs: Tensor) -> LogTensor:
        """Replace rungs and signs in place, without checks, as an optimizer does at each step.

        Args:
            exponent: integers in 0 .. 2^bits - 1, of this tensor's shape.
            signs: +1 or -1 (any dtype), or bool with True for negative, of this tensor's shape.
        """
        negative = signs if signs.dtype == torch.bool else signs < 0
        if not self.is_whole:  # the storage is packed, so that the other weights are written again, unchanged
            exponent = write_weights(self, self._storage.exponent(), exponent)
            negative = write_weights(self, self._storage.negative(), negative)
        self._storage.write_codes(exponent.reshape(-1), negative.reshape(-1))
        torch.autograd.graph.increment_version(self)  # so that a stale backward pass raises, as for any tensor
        return self

    @torch.no_grad()
    def set_mask_(self, mask: Tensor | None) -> LogTensor:
        """Make weights exactly zero, and keep them zero under Madam. The ladder itself has no zero.

        Args:
            mask: bool, False where the weight is zero. None removes the mask: the weights have their codes' values
                again. Its shape is this tensor's, with trailing dimensions of 1 where one bit stands for a whole
                slice: (N, 1) masks the rows of an (N, D) weight in N bits.

        Raises:
            ValueError: a mask of another dtype or shape, or a LogTensor that is a view of a part of another.
        """
        if not self.is_whole:
            raise ValueError("set_mask_ needs a whole LogTensor, not a view of a part of one; call it on the whole one")
        if mask is None:
            self._storage.keep, self._storage.group = None, 1
            torch.autograd.graph.increment_version(self)
            return self
        trailing = next((d for d in range(self.dim()) if mask.shape[d:].numel() == 1), self.dim())
        if mask.dtype != torch.bool or mask.shape[:trailing] != self.shape[:trailing] or mask.dim() != self.dim():
            raise ValueError(
                f"mask must be a bool tensor of shape {tuple(self.shape)}, or with trailing dimensions of 1,"
                f" got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        self._storage.keep, self._storage.group = pack(mask.reshape(-1), 1), self.shape[trailing:].numel()
        torch.autograd.graph.increment_version(self)
        return self

    # Being a tensor

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        values = repr(self.detach().dequantize()).removeprefix("tensor(").removesuffix(")")
        extra = ", requires_grad=True" if self.requires_grad else ""
        return f"LogTensor({values}, bits={self.bits}, base_precision={self.base_precision:.4g}{extra})"

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        of, names = self._storage, [f"_{name}" for name in self._storage.planes()]
        return names, (of.format, of.count, of.group, self.storage_offset(), self.dtype)

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], context: Any, size: Any, stride: Any) -> LogTensor:
        format, count, group, offset, dtype = context
        storage = LogStorage.from_planes(format, count, {name[1:]: plane for name, plane in inner.items()}, group)
        return LogTensor(storage, size, stride=stride, offset=offset, dtype=dtype)

    def _stable_hash_for_caching(self) -> str:
        """What a graph compiled for this tensor depends on. torch.compile looks graphs up on disk by it."""
        made_by = (_edition(), backend())
        return repr((type(self).__name__, *self.__tensor_flatten__(), tuple(self.shape), self.stride(), *made_by))

    # The planes by name, for __tensor_flatten__.
    _low = property(lambda self: self._storage.low)
    _high = property(lambda self: self._storage.high)
    _sign = property(lambda self: self._storage.sign)
    _scale = property(lambda self: self._storage.scale)
    _keep = property(lambda self: self._storage.keep)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._get_tracing_state() is not None:
            raise NotImplementedError(
                "torch.jit.trace cannot record LogTensors: use torch.export or torch.compile, or trace a float copy,"
                " lognet.unwrap(copy.deepcopy(model))"
            )
        handler = FUNCTIONS.get(func)
        if handler is not None:
            return handler(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        with torch._C.DisableTorchFunctionSubclass():  # each look at an attribute would call __torch_function__
            return op_handler(func)(func, *args, **(kwargs or {}))


@cache
def _edition() -> str:
    """A digest of the Python code of lognet, because other code may make other graphs of the same model."""
    root = Path(__file__).parents[1]
    return "".join(digest(folder, ".py") for folder in (root, root / "optim", root / "quant"))


def _default_scale(values: Tensor, largest: float) -> float:
    """The scale where none is given: the largest magnitude, or 1 for a tensor without elements."""
    if values.numel() == 0:
        return 1.0
    if largest == 0:
        raise ValueError("x is all zeros, which give no scale; give scale= (the magnitude of the top rung)")
    return largest


def _scale_tensor(ladder: LogFormat, scale: float | Tensor, device: torch.device) -> Tensor:
    """A scale as storages hold it: checked, 0-dim float32."""
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise ValueError(f"scale must be one number for the whole tensor, got shape {tuple(scale.shape)}")
        scale = float(scale)
    return torch.tensor(ladder.check_scale(check_positive("scale", scale)), dtype=torch.float32, device=device)
