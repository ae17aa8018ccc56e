"""Native kernels as operations of torch, which torch.compile keeps whole in its graphs.

Inductor makes of the plain operations what a GPU wants: one loop with whatever comes next. On the CPU its loop is many
times slower than the kernel, and there the graph calls it. In a program of torch.export are the plain ones alone, so that
it runs where lognet is not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .bitpack import unpack, unpack_codes
from .kernels import backend, native
from .log_format import LogFormat
from .tracing import compiling

_PLANES = "Tensor low, Tensor? high, Tensor sign, Tensor scale, int bits, float base_precision"


def _define(name: str, schema: str, shape: Callable[..., Tensor]) -> Callable[[Callable[..., Tensor]], Any]:
    """Make a function the operation ``lognet::name``, whose result has the shape and the dtype that `shape` gives.

    A graph calls it for every weight of every token: of the two ways to define one this takes half the time, as
    `torch.library.custom_op` looks for aliases and gradients that cannot be.
    """

    def register(function: Callable[..., Tensor]) -> Any:
        if not hasattr(torch.ops.lognet, name):
            library = torch.library.Library("lognet", "FRAGMENT")
            library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
            library.impl(name, function, "CompositeExplicitAutograd")
            torch.library.register_fake(f"lognet::{name}", shape, lib=library)
            # It stays for good: this module may be imported again.
            vars(torch.ops.lognet).setdefault("libraries", []).append(library)
        return getattr(torch.ops.lognet, name).default

    return register


_ladder = lru_cache(maxsize=64)(LogFormat)


@_define(
    "decode",
    f"({_PLANES}, int total, int start, int count) -> Tensor",
    lambda low, *rest: low.new_empty(rest[-1], dtype=torch.float32),
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
    """`lognet.quant.kernels.native.decode`, and where there are no kernels the same in plain torch."""
    ladder = _ladder(bits, base_precision)
    if native.serves(low, high, sign, scale):
        rungs = ladder.unit_rungs(torch.float32, low)
        return native.decode(low, high, sign, bits, rungs, scale, total, start, count)
    exponent, negative = unpack_codes(low, high, bits, count, start), unpack(sign[start // 8 :], 1, count).bool()
    return ladder.decode(exponent, negative, scale, torch.float32)


@_define(
    "linear",
    f"(Tensor x, {_PLANES}, int out_features) -> Tensor",
    lambda x, *rest: x.new_empty(x.shape[0], rest[-1]),
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
) -> Tensor:
    """`lognet.quant.kernels.native.product` of a float32 matrix, and where there are no kernels one with the decoded weight."""
    rows, in_features = x.shape
    x, planes = x.contiguous(), (low, high, sign)
    if native.serves(x, *planes, scale):
        ladder, shape = _ladder(bits, base_precision), (out_features, in_features)
        rungs = ladder.unit_rungs(torch.float32, low)
        return native.product(*planes, bits, rungs, scale, ladder.by_octaves, shape, x, rows)
    count = out_features * in_features
    return x @ decode(*planes, scale, bits, base_precision, count, 0, count).view(out_features, in_features).T


def _has_kernels() -> bool:
    return backend() != "reference"


# What torch.compiler.assume_constant_result does, which would import the compiler now: a second and a half.
_has_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]


def wanted(low: Tensor) -> bool:
    """Whether torch.compile traces, and should be given these operations for planes like this one."""
    return low.device.type == "cpu" and compiling() and _has_kernels()
