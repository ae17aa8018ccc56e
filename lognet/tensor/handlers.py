"""The two tables of operations that LogTensors handle themselves.

torch asks a tensor subclass twice. Before autograd it calls ``__torch_function__`` with a function of the Python
interface (``F.linear``) and its arguments as the caller gave them; `FUNCTIONS` answers. Below autograd it calls
``__torch_dispatch__`` with an operation (``aten.copy_.default``); `OPS` answers. Importing the modules of this folder
fills both tables, and `lognet` imports them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

Handler = TypeVar("Handler", bound=Callable[..., Any])

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""Functions of torch that have a handler. Every other function runs as torch's own, which ends in operations."""

OPS: dict[Any, Callable[..., Any]] = {}
"""Operations, and namespaces of operations (strings), that have a handler."""

ANY_OTHER = "every other operation"


def handles_function(*functions: Any) -> Callable[[Handler], Handler]:
    """Register the handler of functions of torch: it gets the arguments of the call.

    Raises:
        ValueError: one of them has a handler already.
    """
    return lambda handler: _register(FUNCTIONS, functions, handler)


def handles_op(*ops: Any) -> Callable[[Handler], Handler]:
    """Register the handler of operations, below autograd: it gets the operation, then the arguments.

    A string ("c10d") stands for all operations of that namespace that have no handler of their own.

    Raises:
        ValueError: one of them has a handler already.
    """
    return lambda handler: _register(OPS, ops, handler)


@cache
def op_handler(op: Any) -> Callable[..., Any]:
    """The handler of an operation: its own, else that of its namespace, else that of `ANY_OTHER`."""
    return OPS.get(op) or OPS.get(op.namespace) or OPS[ANY_OTHER]


def _register(table: dict[Any, Callable[..., Any]], keys: tuple[Any, ...], handler: Handler) -> Handler:
    for key in keys:
        if key in table:
            raise ValueError(
                f"{key} has a handler already, {table[key]!r}, which {handler!r} would replace; an operation has one"
                " handler: extend that one"
            )
    table.update(dict.fromkeys(keys, handler))
    op_handler.cache_clear()
    return handler
