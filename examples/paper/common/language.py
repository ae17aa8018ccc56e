"""Language models on a text in parallel columns, with the loss in bits or as perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recipe import Recipe

Window = tuple[Tensor, Tensor, bool]
"""Inputs and targets (rows, length), and whether the columns start anew here."""


def columns(tokens: Tensor, rows: int) -> Tensor:
    """A text (n) as `rows` parallel columns (rows, n // rows)."""
    length = len(tokens) // rows
    if length < 2:
        raise SystemExit(
            f"error: a text of {len(tokens)} tokens is too short for {rows} columns; use a smaller --batch"
        )
    return tokens[: length * rows].view(rows, length)


class LanguageRecipe(Recipe):
    """Predict the next token: cross-entropy.

    Training reads windows of --length tokens of --batch columns, one after the other. The model's state (its memory,
    without gradients) goes from one window to the next. At the end of the text the columns start again.
    """

    state = "state"  # key in `carried`

    def __init__(self, args, place) -> None:
        super().__init__(args, place)
        text, self.valid, self.test, self.vocabulary = self.read()
        self.text = columns(text, args.batch)[place.rank :: place.world]
        self.windows = max(1, (self.text.shape[1] - 1) // args.length)
        self.plan(self.windows, args.eval_every)

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--length", type=int, help="tokens of a training window")
        parser.add_argument("--eval-length", type=int, help="tokens of a window in evaluation")
        parser.add_argument("--eval-batch", type=int, default=16, help="columns in evaluation")
        parser.add_argument("--eval-every", type=int, help="steps between evaluations; default: an epoch")
        parser.add_argument("--layers", type=int)
        parser.add_argument("--width", type=int)

    def read(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """Training, validation and test tokens, and how many kinds of tokens there are."""
        raise NotImplementedError

    def batches(self, first: int) -> Iterator[Window]:
        step = first
        while True:
            number = step % self.windows
            yield self._window(self.text, number, self.args.length)
            step += 1

    def _window(self, text: Tensor, number: int, length: int) -> Window:
        start = number * length
        x, y = text[:, start : start + length], text[:, start + 1 : start + length + 1]
        x, y = x[:, : y.shape[1]].long(), y.long()  # the last window of a short text may be cut
        return x.to(self.place.device), y.to(self.place.device), number == 0

    def predict(self, network: nn.Module, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Logits (rows, length, vocabulary) of (rows, length), and the next state."""
        return network(x, state)

    def loss(self, network: nn.Module, batch: Window) -> Tensor:
        """Cross-entropy in nats, of a window after what was read before."""
        x, y, fresh = batch
        logits, state = self.predict(network, x, None if fresh else self.carried.get(self.state))
        self.carried = {} if state is None else {self.state: state.detach()}
        return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    def nats(self, model: nn.Module, tokens: Tensor) -> float:
        """Cross-entropy of a text in nats a token."""
        rows = max(self.place.world, min(self.args.eval_batch, len(tokens) // 2))
        text = columns(tokens, rows)[self.place.rank :: self.place.world]
        length, state = self.args.eval_length or self.args.length, None
        total, count = torch.zeros((), dtype=torch.float64, device=self.place.device), 0
        for number in range(math.ceil((text.shape[1] - 1) / length)):
            x, y, _ = self._window(text, number, length)
            logits, state = self.predict(model, x, state)
            total += F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="sum")
            count += y.numel()
        total, count = self.place.sum(total, count)
        return total / count

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        """Bits a token and perplexity: of the validation text, and of the test text when the run is over."""
        results = self._results("valid", self.nats(model, self.valid))
        return results | self._results("test", self.nats(model, self.test)) if final else results

    def _results(self, name: str, nats: float) -> dict[str, float]:
        return {f"{name}_bits": nats / math.log(2), f"{name}_perplexity": math.exp(min(nats, 700.0))}
