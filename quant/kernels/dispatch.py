"""Chooses who computes an operation on codes: plain torch, a back end, or an operator in a graph. No other file does.

An operation is a function in plain torch, which is its specification and runs on every device, under the decorator `operation`.
Callers do not need to know what computes it. A back end computes operations faster on one type of device.

To add a back end:

- In a file like `native.py`, make a `BackEnd` for the type of device, as torch spells it ("cuda").
- Under its decorator ``computes``, write a function for each operation that it has, with the name and the arguments of that
  operation. It returns NotImplemented for arguments that it does not take (a dtype, say); then the plain function is called.
- Import the file in `lognet.quant.kernels`.

Eager calls are chosen in Python, in about a microsecond, because torch's own dispatcher takes 10 to 30 for a function in Python.
Only graphs of torch.compile see an operator of torch, ``lognet::NAME``, which they call as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor

from ..tracing import compiling, is_eager

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
_BACK_ENDS: dict[str, BackEnd] = {}
PLAIN = (Tensor, torch.nn.Parameter)
"""The types of tensors with memory of their own, which kernels may read."""


class BackEnd:
    """The operations that are computed faster on one type of device.

    Args:
        device: the type, for example "cpu".
        ready: says whether the functions can be called: a library may be missing, or switched off.
        in_graphs: graphs of torch.compile call the operators of the operations that have one. False leaves the plain functions
            to the compiler, which may make better code of them.
    """

    def __init__(self, device: str, ready: Callable[[], bool], in_graphs: bool) -> None:
        self.ready, self.in_graphs = ready, in_graphs
        self.functions: dict[str, Callable[..., Any]] = {}
        _BACK_ENDS[device] = self

    def computes(self, function: Callable[P, R]) -> Callable[P, R]:
        """Register a function for the operation of its name."""
        self.functions[function.__name__] = function
        return function


class Operation(Protocol[P, R]):
    """A function that chooses who computes it."""

    @property
    def kernel(self) -> Callable[P, R]:
        """The same, but it returns NotImplemented where there is only the plain function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


def operation(
    tensors: int, schema: str = "", fake: Callable[..., Tensor] | None = None
) -> Callable[[Callable[P, R]], Operation[P, R]]:
    """Make a plain function an operation.

    Args:
        tensors: the number of its leading arguments that are tensors, or None. Back ends get these contiguous, of a type in
            `PLAIN` and on one device.
        schema: arguments and result in torch's language, for an operation that graphs call: ``lognet::NAME``.
        fake: the result's shape and dtype, an empty tensor, from the arguments of the operator.
    """

    def define(plain: Callable[P, R]) -> Operation[P, R]:
        name: str = plain.__name__

        def eager(*args: P.args, **kwargs: P.kwargs) -> R:
            result = _eager_kernel(name, tensors, args, kwargs) if is_eager() else NotImplemented
            return plain(*args, **kwargs) if result is NotImplemented else result

        operator: Any = None if fake is None else _operator(name, schema, eager, fake)

        def in_graph(*args: Any, **kwargs: Any) -> Any:
            wanted = operator is not None and compiling() and _in_graphs(args[0].device.type)
            return operator(*args, **kwargs) if wanted else NotImplemented

        def kernel(*args: Any, **kwargs: Any) -> Any:
            return _eager_kernel(name, tensors, args, kwargs) if is_eager() else in_graph(*args, **kwargs)

        @wraps(plain)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            result = _eager_kernel(name, tensors, args, kwargs) if is_eager() else in_graph(*args, **kwargs)
            return plain(*args, **kwargs) if result is NotImplemented else result

        call.kernel = kernel  # type: ignore[attr-defined]
        return cast("Operation[P, R]", call)

    return define


def _eager_kernel(name: str, tensors: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a back end, or NotImplemented."""
    first, strided = args[0], False
    on_cpu = first.is_cpu
    back_end = _BACK_ENDS.get("cpu" if on_cpu else first.device.type)
    if back_end is None or not back_end.ready() or (function := back_end.functions.get(name)) is None:
        return NotImplemented
    for tensor in args[:tensors]:
        if tensor is not None:
            if type(tensor) not in PLAIN or not (tensor.is_cpu if on_cpu else tensor.device == first.device):
                return NotImplemented
            strided = strided or not tensor.is_contiguous()
    if strided:
        args = (*(t if t is None else t.contiguous() for t in args[:tensors]), *args[tensors:])
    return function(*args, **kwargs)


def _in_graphs(device: str) -> bool:
    back_end = _BACK_ENDS.get(device)
    return back_end is not None and back_end.in_graphs and back_end.ready()


# What torch.compiler.assume_constant_result does, which would import the compiler now: a second and a half.
_in_graphs._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _operator(name: str, schema: str, function: Callable[..., Any], fake: Callable[..., Tensor]) -> Any:
    """The operator ``lognet::name`` of torch, which calls `function`.

    A graph calls it for every weight of every token. `torch.library.custom_op` would take twice as long for a call, because it
    looks for aliases and gradients that cannot be.
    """
    if not hasattr(torch.ops.lognet, name):
        library = torch.library.Library("lognet", "FRAGMENT")
        library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"lognet::{name}", fake, lib=library)
        # The operator stays for good, because this module may be imported again.
        vars(torch.ops.lognet).setdefault("libraries", []).append(library)
    return getattr(torch.ops.lognet, name).default
