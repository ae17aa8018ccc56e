"""Few-bit weights: decoding, encoding, products and generation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lognet
from lognet import LogTensor

from .measure import Row, Size, compare, faster, timed
from .networks import Memory, Transformer

THEME = "Reading weights"


def decoding(size: Size) -> Iterator[Row]:
    """Decoding weights to floats, against copying as many floats."""
    x = 0.1 * torch.randn(size.width, size.width)
    contenders: dict[str, Callable[[], object]] = {"copy": x.clone}
    for bits in (8, 10, 12):
        contenders[str(bits)] = LogTensor.from_float(x, bits).dequantize
    found = compare(contenders, "copy", size.rounds)
    for bits in (8, 10, 12):
        against = f"a copy of {x.numel():,} float32"
        yield timed(THEME, f"decode {bits} bits to float32", against, found[str(bits)], 1.5)


def encoding(size: Size) -> Iterator[Row]:
    """Encoding weights from floats, against copying the floats."""
    x = 0.1 * torch.randn(size.width, size.width)
    contenders: dict[str, Callable[[], object]] = {"copy": x.clone}
    for bits in (8, 10, 12):
        contenders[str(bits)] = lambda bits=bits: LogTensor.from_float(x, bits)
    found = compare(contenders, "copy", size.rounds)
    for bits in (8, 10, 12):
        yield timed(THEME, f"encode {bits} bits from float32", f"a copy of {x.numel():,} float32", found[str(bits)])


@torch.inference_mode()
def products(size: Size) -> Iterator[Row]:
    """A matrix times one vector, and times a few vectors."""
    weight = 0.1 * torch.randn(size.width, size.width)
    vector = torch.randn(size.width)
    contenders: dict[str, Callable[[], object]] = {"torch.mv": lambda: torch.mv(weight, vector)}
    on_ladders = {bits: LogTensor.from_float(weight, bits) for bits in (8, 10, 12)}
    for bits, w in on_ladders.items():
        contenders[str(bits)] = lambda w=w: torch.mv(w, vector)
    found = compare(contenders, "torch.mv", 2 * size.rounds)
    shape = f"{size.width} x {size.width}"
    for bits, bound in ((8, 0.35), (10, 0.5), (12, 0.6)):
        yield timed(
            THEME, f"matrix times vector, {bits} bits", f"torch.mv in float32, {shape}", found[str(bits)], bound
        )
    for batch in (4, 8):
        x = torch.randn(batch, size.width)
        both = {"torch": lambda x=x: F.linear(x, weight), "8": lambda x=x: F.linear(x, on_ladders[8])}
        result = compare(both, "torch", size.rounds)["8"]
        yield timed(THEME, f"linear layer, {batch} rows, 8 bits", f"torch in float32, {shape}", result)


def token_by_token(model: nn.Module, first: Tensor) -> Callable[[], object]:
    """A call that generates the next token, with a memory of at most 64."""
    state: dict[str, Tensor | Memory] = {"token": first, "memory": []}

    def generate() -> None:
        memory = state["memory"]
        if memory and memory[0][0].shape[2] >= 64:
            memory.clear()
        state["token"] = model(state["token"], memory)[:, -1:].argmax(-1)

    return generate


@torch.inference_mode()
def generation(size: Size) -> Iterator[Row]:
    """Tokens a second at batch 1, where every token reads all weights once."""
    model = Transformer(2 * size.model, 4).eval().requires_grad_(False)
    count = sum(p.numel() for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters())
    few = {f"{bits} bits": lognet.wrap(copy.deepcopy(model), bits=bits, include=nn.Linear) for bits in (8, 12)}
    models = {"float32": model, "bfloat16": copy.deepcopy(model).bfloat16(), **few}
    first = torch.zeros(1, 1, dtype=torch.long)
    contenders = {name: token_by_token(m, first) for name, m in models.items()}
    for against in ("float32", "bfloat16"):
        found = compare(contenders, against, size.rounds)
        for name, bound in (("8 bits", 2.5), ("12 bits", None)):
            what = f"generation, {name}, times the tokens a second"
            yield faster(THEME, what, f"the {against} model, {count:,} weights in linear layers", found[name], bound)


def rows(size: Size) -> Iterator[Row]:
    for part in (decoding, encoding, products, generation):
        yield from part(size)
