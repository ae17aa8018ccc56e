"""Native kernels as operations of torch, which torch.compile keeps whole in its graphs.

Inductor makes of the plain operations what a GPU wants: one loop with whatever comes next. On the CPU its loop is many
times slower than the kernel, and there the graph calls it. In a program of torch.export are the plain ones alone, so that
it runs where lognet is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .bitpack import unpack, unpack_codes
from .kernels import backend, native
from .log_format import LogFormat

_SCHEMA = (
    "(Tensor low, Tensor? high, Tensor sign, Tensor scale, int bits, float base_precision, int total, int start,"
    " int count) -> Tensor"
)


@torch.library.custom_op("lognet::decode", mutates_args=(), schema=_SCHEMA)
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
    ladder = LogFormat(bits, base_precision)
    if native.serves(low, high, sign, scale):
        rungs = ladder.unit_rungs(torch.float32, low)
        return native.decode(low, high, sign, bits, rungs, scale, total, start, count)
    exponent, negative = unpack_codes(low, high, bits, count, start), unpack(sign[start // 8 :], 1, count).bool()
    return ladder.decode(exponent, negative, scale, torch.float32)


@decode.register_fake
def _(low: Tensor, *rest: Any) -> Tensor:
    return low.new_empty(rest[-1], dtype=torch.float32)


def _has_kernels() -> bool:
    return backend() != "reference"


# What torch.compiler.assume_constant_result does, which would import the compiler now: a second and a half.
_has_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]


def wanted(low: Tensor) -> bool:
    """Whether somebody traces who should be given these operations for planes like this one."""
    return low.device.type == "cpu" and torch.compiler.is_compiling() and not _exporting() and _has_kernels()


def _exporting() -> bool:
    return hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting()  # PyTorch 2.6 has no such word
