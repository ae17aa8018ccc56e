"""The recurrence under the LSTM and GRU layers whose gates are factored linear layers of any kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...tensor.recompute import recomputed
from ..parameters import quantize_parameters_
from ..sizes import check_count
from .factored import FactoredLinear
from .sums import PreparedLinear, prepared_linear

MakeLinear = Callable[[int, int], FactoredLinear]
State = Tensor | tuple[Tensor, ...]


class FactoredRNN(nn.Module):
    """The base of the recurrent layers here: layers, directions and packed sequences as in `torch.nn.LSTM`.

    Every layer and direction has `gates` factored linear layers from its input and as many from its hidden state, or
    with `fused` one of each that gives all gates. A subclass says in `_step` how gates become a state. The matrices
    are built once for a whole sequence where the cost model finds that cheaper, and where factors are LogTensors the
    sequence is run again in the backward pass: the graph keeps codes, inputs and outputs.
    """

    gates: int
    states: int
    hidden_bias: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        fused: bool,
        make_linear: MakeLinear,
        impl: str,
        bits: int | None,
        factory: dict[str, Any],
    ) -> None:
        super().__init__()
        self.input_size = check_count("input_size", input_size)
        self.hidden_size = check_count("hidden_size", hidden_size)
        self.num_layers = check_count("num_layers", num_layers)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability from 0 to 1, got {dropout}")
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.fused, self.impl = bidirectional, fused, impl
        self.input_layers, self.hidden_layers = nn.ModuleList(), nn.ModuleList()
        count, width = (1, self.gates) if fused else (self.gates, 1)
        for name in self._names():
            layer_input = input_size if name.startswith("l0") else hidden_size * self._directions
            make = lambda size: nn.ModuleList(make_linear(size, width * hidden_size) for _ in range(count))
            self.input_layers.append(make(layer_input))
            self.hidden_layers.append(make(hidden_size))
            for prefix in ("bias_ih_", "bias_hh_")[: 1 + self.hidden_bias] if bias else ():
                value = torch.empty(self.gates * hidden_size, **factory)
                self.register_parameter(prefix + name, nn.Parameter(value))
        self._reset_biases()
        quantize_parameters_(self, bits)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _names(self) -> list[str]:
        """Of layers and directions, as torch has them."""
        return [f"l{k}{suffix}" for k in range(self.num_layers) for suffix in ("", "_reverse")[: self._directions]]

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew; rules of PHM layers stay."""
        for layer in self.modules():
            if isinstance(layer, FactoredLinear):
                layer.reset_parameters()
        self._reset_biases()

    def _reset_biases(self) -> None:
        for name, p in self.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.uniform_(p, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def _step(self, from_input: Tensor, hidden: PreparedLinear, bias: Tensor | None, state: Sequence[Tensor]) -> Any:
        raise NotImplementedError

    def _run(self, input: Any, hx: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """All layers and directions: outputs in the input's layout, final states (layers * directions, N, hidden)."""
        packed = isinstance(input, PackedSequence)
        unbatched = not packed and input.dim() == 2
        if not packed and input.dim() not in (2, 3):
            raise ValueError(f"input must have 2 (unbatched) or 3 dimensions, got shape {tuple(input.shape)}")
        if packed:
            data, sizes = input.data, input.batch_sizes.tolist()
        else:
            x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if self.batch_first else input
            data, sizes = x.reshape(-1, x.shape[-1]), [x.shape[1]] * x.shape[0]
        if data.shape[-1] != self.input_size:
            raise ValueError(f"input must have input_size={self.input_size} as its last size, got {data.shape[-1]}")
        batch = sizes[0] if packed else x.shape[1]
        hx = self._initial(hx, batch, unbatched, data)
        if packed and input.sorted_indices is not None:
            hx = tuple(h.index_select(1, input.sorted_indices) for h in hx)
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self._directions):
                index = layer * self._directions + direction
                result = self._layer(index, data, sizes, tuple(h[index] for h in hx), bool(direction))
                outputs.append(result[0])
                finals.append(result[1:])
            data = torch.cat(outputs, dim=-1) if self.bidirectional else outputs[0]
            if self.dropout and layer < self.num_layers - 1:
                data = F.dropout(data, self.dropout, self.training)
        state = tuple(torch.stack(of_one) for of_one in zip(*finals, strict=True))
        if packed:
            if input.unsorted_indices is not None:
                state = tuple(h.index_select(1, input.unsorted_indices) for h in state)
            return PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices), state
        out = data.reshape(len(sizes), x.shape[1], data.shape[-1])
        if unbatched:
            return out.squeeze(1), tuple(h.squeeze(1) for h in state)
        return (out.transpose(0, 1) if self.batch_first else out), state

    def _initial(self, hx: tuple[Tensor, ...] | None, batch: int, unbatched: bool, data: Tensor) -> tuple[Tensor, ...]:
        shape = (self.num_layers * self._directions, batch, self.hidden_size)
        if hx is None:
            return tuple(data.new_zeros(shape) for _ in range(self.states))
        if not isinstance(hx, (tuple, list)) or len(hx) != self.states or not all(isinstance(h, Tensor) for h in hx):
            wanted = "one tensor" if self.states == 1 else f"a tuple of {self.states} tensors"
            raise TypeError(f"hx must be {wanted}, the state that the layer returns")
        hx = tuple(h.unsqueeze(1) for h in hx) if unbatched else hx
        for h in hx:
            if tuple(h.shape) != shape:
                raise ValueError(
                    f"hx must have shape {shape} (layers * directions, batch, hidden), got {tuple(h.shape)}"
                )
        return hx

    def _layer(
        self, index: int, data: Tensor, sizes: list[int], state: tuple[Tensor, ...], reverse: bool
    ) -> tuple[Tensor, ...]:
        """One layer in one direction: outputs (sum of sizes, hidden), then final states (N, hidden)."""
        linears: list[FactoredLinear] = [*self.input_layers[index], *self.hidden_layers[index]]  # type: ignore
        factors = [tuple(linear.factors()) for linear in linears]
        name = self._names()[index]
        biases = [getattr(self, prefix + name, None) for prefix in ("bias_ih_", "bias_hh_")]
        run = partial(self._sequence, sizes, reverse, [len(f) for f in factors])
        return recomputed(run, data, *state, *biases, *(t for f in factors for t in f))

    def _sequence(self, sizes: list[int], reverse: bool, lengths: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        data, *tensors = tensors  # type: ignore[assignment]
        state: Sequence[Tensor] = tensors[: self.states]
        (bias_ih, bias_hh), flat = tensors[self.states :][:2], tensors[self.states + 2 :]
        ends = list(accumulate(lengths))
        factors = [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
        half = len(factors) // 2
        width = self.gates * self.hidden_size // half
        hidden = prepared_linear(factors[half:], (width, self.hidden_size), self.impl, len(data))
        from_input = prepared_linear(factors[:half], (width, data.shape[-1]), self.impl, len(data))(data, bias_ih)
        steps = list(zip(from_input.split(sizes), sizes, strict=True))
        outputs = []
        for gates, size in reversed(steps) if reverse else steps:
            new = self._step(gates, hidden, bias_hh, [s[:size] for s in state])
            outputs.append(new[0])
            state = (
                new if size == len(state[0]) else [torch.cat([n, s[size:]]) for n, s in zip(new, state, strict=True)]
            )
        if not outputs:
            return (data.new_zeros(0, self.hidden_size), *state)
        return (torch.cat(outputs[::-1] if reverse else outputs), *state)

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias},"
            f" batch_first={self.batch_first}, dropout={self.dropout}, bidirectional={self.bidirectional}"
        )


class FactoredLSTM(FactoredRNN):
    """i, f, o = sigma(...), g = tanh(...); c' = f c + i g; h' = o tanh(c'), or as printed: o (no sigma) times c'."""

    gates, states, hidden_bias = 4, 2, False
    printed = False

    def _step(self, from_input: Tensor, hidden: PreparedLinear, bias: Tensor | None, state: Sequence[Tensor]) -> Any:
        h, c = state
        i, f, g, o = (from_input + hidden(h, bias)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return (o * c if self.printed else torch.sigmoid(o) * torch.tanh(c)), c

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """As `torch.nn.LSTM`: (output, (h_n, c_n))."""
        output, state = self._run(input, hx)
        return output, (state[0], state[1])


class FactoredGRU(FactoredRNN):
    """r, z = sigma(...); n = tanh(x_n + r h_n); h' = (1 - z) n + z h."""

    gates, states, hidden_bias = 3, 1, True

    def _step(self, from_input: Tensor, hidden: PreparedLinear, bias: Tensor | None, state: Sequence[Tensor]) -> Any:
        (h,) = state
        from_r, from_z, from_n = from_input.chunk(3, dim=-1)
        r, z, n = hidden(h, bias).chunk(3, dim=-1)
        r, z = torch.sigmoid(from_r + r), torch.sigmoid(from_z + z)
        n = torch.tanh(from_n + r * n)
        return (n + z * (h - n),)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """As `torch.nn.GRU`: (output, h_n)."""
        output, state = self._run(input, None if hx is None else (hx,))
        return output, state[0]
