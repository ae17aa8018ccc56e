"""Signs drawn from a seed, which files then hold instead of the signs: B bits a weight rather than B + 1.

Madam with ``sign_crossing=False``, as in the paper, never changes a sign. If the initial signs were drawn from a seed,
that seed gives them again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..quant.random_bits import mix64, random_bools
from .log_tensor import LogTensor


def check_sign_seed(sign_seed: int | None) -> None:
    """Raise TypeError if it is not an int or None."""
    if sign_seed is not None and (isinstance(sign_seed, bool) or not isinstance(sign_seed, int)):
        raise TypeError(
            f"sign_seed must be an int, or None for signs that are not drawn from a seed, got {sign_seed!r}"
        )


def sign_keys(model: nn.Module, sign_seed: int) -> dict[int, int]:
    """The keys of the streams that signs are drawn from, as {id of the parameter: 64-bit key}.

    Every parameter of two or more dimensions has one, by its index in ``model.parameters()``. Biases and gains have
    none, because their signs are not arbitrary (gains start at 1) and because they are few.
    """
    return {id(p): mix64(sign_seed, -1, i) for i, p in enumerate(model.parameters()) if not is_lazy(p) and p.dim() >= 2}


def drawn_signs(count: int, key: int, device: torch.device | str = "cpu") -> Tensor:
    """The flat signs of `count` weights that the stream `key` gives: bool, True for negative."""
    return random_bools(count, key, device)


def draw_signs_(weight: LogTensor, key: int) -> None:
    """Replace the signs of a LogTensor by those of the stream `key`."""
    weight.write_codes_(weight.exponent, drawn_signs(weight.numel(), key, weight.device).view(weight.shape))
