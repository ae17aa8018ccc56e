"""Recurrence as `torch.nn.LSTM` and `torch.nn.GRU` define it; the layer families supply only the linear maps.

A sequence is held as `torch.nn.utils.rnn.PackedSequence` holds it: the vectors of all steps, one step after another, and
the number of sequences that each step has. A tensor (time, batch, features) is the case in which all have the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .checks import check_count, check_probability
from .parameters import check_dtype

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, Sequence[Tensor]], State]
"""(gates from the input, gates from the hidden state, state) to the new state, whose first tensor is the output."""


def lstm(x: Tensor, h: Tensor, state: Sequence[Tensor]) -> State:
    """i, f, o = sigma(...), g = tanh(...); c' = f c + i g, h' = o tanh(c'). Gates (*, 4 size), states (*, size)."""
    i, f, g, o = (x + h).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, h: Tensor, state: Sequence[Tensor]) -> State:
    """r, z = sigma(...), n = tanh(x_n + r h_n); h' = (1 - z) n + z h. Gates (*, 3 size), state (*, size)."""
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), h.chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (n + z * (state[0] - n),)


def unroll(
    cell: Cell,
    gates: Tensor,
    sizes: list[int],
    state: Sequence[Tensor],
    reverse: bool,
    hidden: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, State]:
    """One layer in one direction.

    Args:
        cell: `lstm`, `gru`, or one of another kind.
        gates: from the input, (sum of sizes, *), one step after another.
        sizes: the number of sequences that each step has, at least one step; the first sequences are the longest.
        state: each (batch, *).
        reverse: go from the last step to the first.
        hidden: from the hidden state to the gates that it gives.
        project: from the new hidden state to what the layer makes of it (`proj_size`).

    Returns:
        The outputs, (sum of sizes, *), and the state of every sequence after its last step.
    """
    steps = list(zip(gates.split(sizes), sizes, strict=True))
    outputs = []
    for x, size in reversed(steps) if reverse else steps:
        whole = size == len(state[0])
        active = [s[:size] for s in state]
        new = cell(x, hidden(active[0]), active)
        if project is not None:
            new = (project(new[0]), *new[1:])
        outputs.append(new[0])
        state = new if whole else [torch.cat([n, s[size:]]) for n, s in zip(new, state, strict=True)]
    return torch.cat(outputs[::-1] if reverse else outputs), tuple(state)


def checked_state(hx: Any, shapes: Sequence[tuple[int, ...]], like: Tensor) -> State:
    """The state as a tuple of tensors of the given shapes, of h and, for LSTMs, of c. None becomes zeros like `like`."""
    if hx is None:
        return tuple(like.new_zeros(shape) for shape in shapes)
    pair = len(shapes) > 1
    given = hx if pair else (hx,)
    if not isinstance(given, (tuple, list)) or [isinstance(s, Tensor) for s in given] != [True] * len(shapes):
        raise TypeError(f"hx must be {'the pair (h, c) of tensors' if pair else 'a tensor'}, got {type(hx).__name__}")
    for name, s, shape in zip(("hx[0]", "hx[1]") if pair else ("hx",), given, shapes, strict=True):
        if tuple(s.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(s.shape)}")
        check_dtype(s, like, name)
    return tuple(given)


class Recurrence(nn.Module):
    """The base of the recurrent layers: layers, directions, projections and sequences as in `torch.nn`.

    A subclass says in `_layer` how one layer runs in one direction, and, if it keeps activations in an order of its
    own, in `_enter` and `_leave` how to get there and back. The arguments are those of `torch.nn.LSTM`.
    """

    gates: int
    states: int
    cell: Cell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
    ) -> None:
        super().__init__()
        self.input_size = check_count("input_size", input_size)
        self.hidden_size = check_count("hidden_size", hidden_size)
        self.num_layers = check_count("num_layers", num_layers)
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = check_probability("dropout", dropout)
        if check_count("proj_size", proj_size, least=0) and self.states == 1:
            raise ValueError(f"proj_size={proj_size} is for LSTMs only, as in torch.nn; leave it out")
        if proj_size >= hidden_size:
            raise ValueError(f"proj_size={proj_size} must be below hidden_size={hidden_size}")
        self.proj_size = proj_size

    def _layer(self, index: int, data: Tensor, sizes: list[int], state: State, reverse: bool) -> tuple[Tensor, State]:
        """Layer and direction `_names()[index]`: outputs and final state, as `unroll` gives them."""
        raise NotImplementedError

    def _enter(self, x: Tensor) -> Tensor:
        return x

    def _leave(self, x: Tensor) -> Tensor:
        return x

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _names(self) -> list[str]:
        """The suffixes of layers and directions, as torch names their parameters: "l0", "l0_reverse", "l1", ..."""
        return [f"l{k}{suffix}" for k in range(self.num_layers) for suffix in ("", "_reverse")[: self._directions]]

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        """Features of h, which a projection makes fewer, and of c."""
        return (self.proj_size or self.hidden_size, self.hidden_size)[: self.states]

    def _inputs_of(self, name: str) -> int:
        return self.input_size if name.startswith("l0") else self._state_sizes[0] * self._directions

    def _run(self, input: Any, hx: Any) -> tuple[Any, State]:
        """All layers: the output in the input's layout, and the final state, each (layers * directions, N, size)."""
        if isinstance(input, PackedSequence):
            self._check_input(input.data)
            state = self._checked(hx, int(input.batch_sizes[0]), input.data)
            if input.sorted_indices is not None:
                state = tuple(s.index_select(1, input.sorted_indices) for s in state)
            out, state = self._stack(input.data, input.batch_sizes.tolist(), state)
            if input.unsorted_indices is not None:
                state = tuple(s.index_select(1, input.unsorted_indices) for s in state)
            return input._replace(data=out), state
        if input.dim() not in (2, 3):
            raise ValueError(
                f"input must be (time, batch, {self.input_size}) or (time, {self.input_size}), got {tuple(input.shape)}"
            )
        self._check_input(input)
        unbatched = input.dim() == 2
        x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if self.batch_first else input
        time, batch = x.shape[:2]
        if time == 0:
            raise ValueError("input must have at least one step of time, as in torch.nn; skip empty sequences")
        state = self._checked(hx, None if unbatched else batch, input)
        state = tuple(s.unsqueeze(1) for s in state) if unbatched else state
        out, state = self._stack(x.flatten(0, 1), [batch] * time, state)
        out = out.unflatten(0, (time, batch))
        if unbatched:
            return out.squeeze(1), tuple(s.squeeze(1) for s in state)
        return (out.transpose(0, 1) if self.batch_first else out), state

    def _check_input(self, input: Tensor) -> None:
        if input.shape[-1] != self.input_size:
            raise ValueError(f"input must have input_size={self.input_size} last, got shape {tuple(input.shape)}")
        check_dtype(input, next(self.parameters()))

    def _checked(self, hx: Any, batch: int | None, like: Tensor) -> State:
        leading = (self.num_layers * self._directions, *(() if batch is None else (batch,)))
        return checked_state(hx, [(*leading, size) for size in self._state_sizes], like)

    def _stack(self, data: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
        data, state = self._enter(data), tuple(self._enter(s) for s in state)
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self._directions):
                index = layer * self._directions + direction
                own = tuple(s[index] for s in state)
                output, final = self._layer(index, data, sizes, own, bool(direction))
                outputs.append(output)
                finals.append(final)
            data = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
            if self.dropout and layer < self.num_layers - 1:
                data = F.dropout(data, self.dropout, self.training)
        return self._leave(data), tuple(self._leave(torch.stack(s)) for s in zip(*finals, strict=True))

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False}
        for name, default in {**defaults, "proj_size": 0}.items():
            text += "" if getattr(self, name) == default else f", {name}={getattr(self, name)}"
        return text


class LSTM(Recurrence):
    gates, states, cell = 4, 2, staticmethod(lstm)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """As `torch.nn.LSTM`: (output, (h_n, c_n))."""
        output, (h, c) = self._run(input, hx)
        return output, (h, c)


class GRU(Recurrence):
    gates, states, cell = 3, 1, staticmethod(gru)

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """As `torch.nn.GRU`: (output, h_n)."""
        output, (h,) = self._run(input, hx)
        return output, h
