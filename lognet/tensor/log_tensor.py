"""LogTensor: a tensor of signs and B-bit exponents that computes like the floats it stands for.

It is to a `LogStorage` what a torch tensor is to its storage: shape, strides and an offset over shared bits. So a
transpose or a slice costs nothing, stays a LogTensor and writes through; every other operation works on decoded
values and gives a dense tensor; and an operation in place decodes, computes and encodes again on the same ladder.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..quant.kernels import backend
from ..quant.kernels.bitpack import pack
from ..quant.kernels.sources import digest
from ..quant.log_format import LogFormat, check_positive
from ..quant.random_bits import key_from_generator
from ..quant.rounding import check_rounding
from .storage import LogStorage, check_finite

_FUNCTIONS: dict[Any, Callable[..., Any]] = {}  # torch functions with an implementation of their own (see autograd.py)
_OPS: dict[Any, Callable[..., Any]] = {}  # aten operations likewise (see dispatch.py)
ANY_OPERATION = "any other"


class LogTensor(Tensor):
    """A tensor whose elements are ``sign * scale * exp(-k * base_precision)``, held in B + 1 bits each.

    Make one with `from_float` or `from_codes`. It reports a floating dtype (the dtype in which it decodes) and is
    differentiable: its gradients are dense tensors. `torch.nn.Parameter(LogTensor.from_float(x))` is a parameter.

    - Linear, convolution, embedding and matrix products run through `lognet.tensor.functional`, which keeps codes for the
      backward pass. Views (transpose, slices, reshapes of contiguous tensors) are LogTensors on the same bits. Any
      other operation decodes and gives a dense tensor.
    - An in-place write (``copy_``, ``nn.init``, a foreign optimizer) encodes with nearest rounding on the ladder as
      it is: the scale stays, larger values saturate with a warning. Copying another LogTensor of the same ladder
      takes over its codes and scale exactly; of another ladder, it raises ValueError.

    Args:
        storage: the packed bits, which several tensors may share. The constructor is for the library itself, which
            makes views with it.
        size: the shape; any.
        stride, offset: of the window on the storage, in weights. Default: contiguous, from the first weight on.
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
    _whole: bool
    """Whether this is its storage, whole and in order, rather than a view of a part of it."""

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
            strides=_contiguous_strides(size) if stride is None else stride,
            storage_offset=offset,
            dtype=dtype,
            device=storage.low.device,
            requires_grad=requires_grad,
        )
        self._storage = storage
        self._whole = (
            offset == 0
            and math.prod(size) == storage.count
            and (stride is None or tuple(stride) == _contiguous_strides(size))
        )
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
            x: floating tensor, any shape; it is not changed and no gradient flows to it.
            bits: B, bits of the exponent, 2 to 16 (the sign is one more).
            base_precision: eta_0, rung spacing in nats. Default: ``lognet.quant.default_base_precision(bits)``, for eight
                octaves from 7 bits on.
            scale: sigma*, the magnitude of rung 0. Default: max |x|. Larger values saturate at rung 0, values below
                the ladder at the last rung.
            rounding: "nearest" rung in log space, or "stochastic": floor(k + u), so that E[k] is exact.
            generator: source of the random bits of stochastic rounding and of the signs of zeros. Default: torch's
                default generator for stochastic rounding; a fixed seed for zeros under nearest rounding.

        Returns:
            A LogTensor of x's shape, dtype and device, contiguous. Zeros stand on the last rung with a random sign.

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
        top = _scale_tensor(ladder, _own_scale(values, largest) if scale is None else scale, values.device)
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
        with torch._C.DisableTorchFunctionSubclass():  # which every look at the shape would call
            if torch.compiler.is_compiling() or in_transform() or (torch.is_grad_enabled() and self.requires_grad):
                return _Dequantize.apply(self, self.dtype if dtype is None else dtype)
            return decode(self, dtype)

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
        return _strided(self, self._storage.exponent)

    @property
    def signs(self) -> Tensor:
        """The signs, unpacked: int8, +1 or -1, of this tensor's shape."""
        return 1 - 2 * self.codes()[1].to(torch.int8)

    def codes(self) -> tuple[Tensor, Tensor]:
        """Rungs (int32) and negative signs (bool), unpacked, of this tensor's shape: what `write_codes_` takes."""
        return self.exponent, _strided(self, self._storage.negative)

    @property
    def mask(self) -> Tensor | None:
        """False where a weight is pruned to exactly zero (of this tensor's shape); None if none is."""
        return None if self._storage.keep is None else _strided(self, self._storage.kept)  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes really held by codes, signs, scale and mask, shared with all views of them."""
        return self._storage.nbytes

    @property
    def is_whole(self) -> bool:
        """Whether this is all of its storage, in order, rather than a view of a part."""
        return self._whole

    # Writing it

    @torch.no_grad()
    def write_codes_(self, exponent: Tensor, signs: Tensor) -> LogTensor:
        """Replace rungs and signs in place, without checks: what an optimizer does at each step.

        Args:
            exponent: integers in 0 .. 2^bits - 1, of this tensor's shape.
            signs: +1 or -1 (any dtype), or bool with True for negative, of this tensor's shape.
        """
        negative = signs if signs.dtype == torch.bool else signs < 0
        if not self._whole:  # of a part, such as a shard with padding behind it: the rest is written as it was
            exponent = place(self, self._storage.exponent(), exponent)
            negative = place(self, self._storage.negative(), negative)
        self._storage.write_codes(exponent.reshape(-1), negative.reshape(-1))
        torch.autograd.graph.increment_version(self)  # so that a stale backward pass raises, as for any tensor
        return self

    @torch.no_grad()
    def set_mask_(self, mask: Tensor | None) -> LogTensor:
        """Make weights exactly zero, and keep them so under Madam: the ladder has no zero of its own.

        Args:
            mask: bool, False where the weight is zero; None takes the mask away and the codes come back. Its shape
                is this tensor's, with trailing dimensions of 1 where one bit stands for a whole slice: (N, 1) masks
                the rows of an (N, D) weight in N bits.
        """
        if not self._whole:
            raise ValueError("set_mask_ needs a whole LogTensor, not a view of a part of one")
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
        return [f"_{name}" for name in self._storage.planes()], (
            self._storage.format,
            self._storage.count,
            self._storage.group,
            self.storage_offset(),
            self.dtype,
        )

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], context: Any, size: Any, stride: Any) -> LogTensor:
        format, count, group, offset, dtype = context
        storage = LogStorage.from_planes(format, count, {name[1:]: plane for name, plane in inner.items()}, group)
        return LogTensor(storage, size, stride=stride, offset=offset, dtype=dtype)

    def _stable_hash_for_caching(self) -> str:
        """What a graph compiled for this tensor depends on: torch.compile asks for it, as it keeps graphs on disk."""
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
        handler = _FUNCTIONS.get(func)
        if handler is not None:
            return handler(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        with torch._C.DisableTorchFunctionSubclass():  # __torch_function__ was asked, and would be for every attribute
            return _OPS.get(func, _OPS[ANY_OPERATION])(func, *args, **(kwargs or {}))


@cache
def _edition() -> str:
    """A name for the Python code of lognet: another one may make other graphs of the same model."""
    root = Path(__file__).parents[1]
    return "".join(digest(folder, ".py") for folder in (root, root / "optim", root / "quant"))


def in_transform() -> bool:
    """Whether a transform of torch.func (vmap, jvp, ...) or forward-mode differentiation is at work.

    These know the rules of torch's own operations, not of custom functions: they get the plain computation on decoded
    weights, with the graph that torch gives it.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


class _Dequantize(torch.autograd.Function):
    """Decoding, whose derivative with respect to the values is the identity; it saves nothing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: LogTensor, dtype: torch.dtype) -> Tensor:
        return decode(weight, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.dtype, ctx.to = inputs[0].dtype, output.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None) -> Tensor | None:
        return None if tangent is None else tangent.to(ctx.to)


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an implementation of torch functions for arguments among which is a LogTensor."""
    return _register(_FUNCTIONS, functions)


def implements_op(*ops: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an implementation of aten operations, below autograd; it gets the operation, then its arguments.

    A namespace, a string, stands for all operations in it that have none of their own.
    """
    return _register(_OPS, ops)


def _register(table: dict[Any, Callable[..., Any]], names: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        table.update(dict.fromkeys(names, implementation))
        return implementation

    return register


@implements(Tensor.numpy)
def _numpy(x: LogTensor, **kwargs: Any) -> Any:
    return x.dequantize().numpy(**kwargs)


@implements(Tensor.__array__)
def _array(x: LogTensor, *args: Any, **kwargs: Any) -> Any:
    return x.dequantize().__array__(*args, **kwargs)


@implements(Tensor.__dlpack__)
def _dlpack(x: LogTensor, *args: Any, **kwargs: Any) -> Any:
    return x.dequantize().__dlpack__(*args, **kwargs)


@implements(Tensor.share_memory_)
def _share_memory(x: LogTensor) -> LogTensor:
    """Torch's own would take the address of the dense tensor that does not exist."""
    for plane in x._storage.planes().values():
        plane.share_memory_()
    return x


@implements(Tensor.is_shared)
def _is_shared(x: LogTensor) -> bool:
    return all(plane.is_shared() for plane in x._storage.planes().values())


@implements(Tensor.storage)
def _storage_of_floats(x: LogTensor) -> Any:
    """Torch's own error says nothing to someone who only called the `save_pretrained` of another library."""
    raise RuntimeError(
        "the values of a LogTensor lie nowhere in memory as floats, which is where safetensors and the libraries that"
        " save with it (transformers, accelerate) read them. Call lognet.float_state_dicts(model) once after lognet.wrap:"
        " their checkpoints then hold floats; or save the packed bits with lognet.save(model, path)"
    )


@implements(Tensor.tolist)
def _tolist(x: LogTensor) -> Any:
    return x.dequantize().tolist()


@implements(Tensor.__format__)
def _format(x: LogTensor, spec: str) -> str:
    return format(x.detach().dequantize() if spec else repr(x), spec)


@implements(Tensor.data.__set__)  # type: ignore[attr-defined]
def _set_data(x: Tensor, value: Tensor) -> None:
    """``x.data = value``, the old way to write under autograd's nose: a write like any other."""
    if not isinstance(x, LogTensor):
        value = value.dequantize()
        x.data = value
        return
    zeros = int(((value == 0) & (x != 0)).sum())
    if zeros:
        warnings.warn(
            f"{zeros} of {x.numel()} values given to .data are zero and become the last rung,"
            f" +-{float(x.scale) / x.format.range:.3g}: the ladder of a LogTensor has no zero. w.set_mask_(mask) makes exact"
            " zeros, and Madam keeps them (after torch.nn.utils.prune.remove, say)",
            stacklevel=3,
        )
    x.detach().copy_(value.detach())


def decode(weight: LogTensor, dtype: torch.dtype | None = None) -> Tensor:
    """The values of a LogTensor below autograd: `dequantize` without the graph."""
    with torch._C.DisableTorchFunctionSubclass():
        dtype = weight.dtype if dtype is None else dtype
        return _strided(weight, lambda start=0, count=None: weight._storage.decode(dtype, start, count))


# Layout: what part of the storage a LogTensor covers, as for any strided tensor.


def _contiguous_strides(size: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def _strided(x: LogTensor, read: Callable[..., Tensor]) -> Tensor:
    """Read the window of flat weights that x covers, then arrange it in x's shape (contiguous)."""
    if x._whole:
        return read().view(x.shape)
    if x.numel() == 0:
        return read(0, 0).view(x.shape)
    first = x.storage_offset()
    last = first + sum((length - 1) * step for length, step in zip(x.shape, x.stride(), strict=True))
    start = first // 8 * 8  # planes have byte boundaries at every eighth weight
    window = read(start, last + 1 - start)
    return window.as_strided(x.shape, x.stride(), window.storage_offset() + first - start).contiguous()


def place(x: LogTensor, flat: Tensor, values: Tensor) -> Tensor:
    """Put values of x's shape where they belong in `flat`, one number for every weight of x's storage; returns it."""
    flat.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(values)
    return flat


def _own_scale(values: Tensor, largest: float) -> float:
    if values.numel() == 0:
        return 1.0
    if largest == 0:
        raise ValueError(
            "x is all zeros, from which no scale can be taken; give scale= (the magnitude of the top rung)"
        )
    return largest


def _scale_tensor(ladder: LogFormat, scale: float | Tensor, device: torch.device) -> Tensor:
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise ValueError(f"scale must be one number for the whole tensor, got shape {tuple(scale.shape)}")
        scale = float(scale)
    return torch.tensor(ladder.check_scale(check_positive("scale", scale)), dtype=torch.float32, device=device)
