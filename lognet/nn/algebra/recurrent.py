"""GRU and LSTM over an algebra: torch.nn's equations, with the algebra's products and component-wise gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ...tensor.forms import CachedForm, Form, expand_floats
from ..parameters import check_bits, check_dtype, glorot, quantize_parameters_, write_
from .algebras import Algebra, tuples_in
from .forms import columns_of
from .linear import check_input
from .masks import Prunable
from .products import products_of

State = tuple[Tensor, ...]


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    """h' = (1 - z) n + z h, with n = tanh(x_n + r h_n); x and h are (batch, columns, 3, height)."""
    r, z = torch.sigmoid(x[:, :, 0] + h[:, :, 0]), torch.sigmoid(x[:, :, 1] + h[:, :, 1])
    n = torch.tanh(x[:, :, 2] + r * h[:, :, 2])
    return ((1 - z) * n + z * state[0],)


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    """c' = f c + i g, h' = o tanh(c'); x and h are (batch, columns, 4, height)."""
    i, f, g, o = (x + h).unbind(2)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class _Recurrent(Prunable):
    """What layers and cells share: parameters named and gated as torch's, and the step."""

    gates: int
    states: int
    proj_size = 0
    step: Callable[[Tensor, Tensor, State], State]

    def __init__(self, input_size: int, hidden_size: int, bias: bool, algebra: str | Algebra, bits: int | None) -> None:
        super().__init__()
        self.algebra, self.bits = Algebra.of(algebra), check_bits(bits)
        tuples_in(input_size, self.algebra, "input_size")
        tuples_in(hidden_size, self.algebra, "hidden_size")
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._products = products_of(self.algebra)
        self._columns = columns_of(self.algebra)

    def _add_parameters(self, input_size: int, suffix: str, device: Any, dtype: Any) -> None:
        for name, inputs in (("ih", input_size), ("hh", self._state_sizes[0])):
            weight = self._initial_weight(self.gates, self.hidden_size, inputs, device, dtype)
            self.register_parameter(f"weight_{name}{suffix}", nn.Parameter(weight))
            if self.bias:
                zeros = torch.zeros(self.gates * self.hidden_size, device=device, dtype=dtype)
                self.register_parameter(f"bias_{name}{suffix}", nn.Parameter(zeros))
            else:
                self.register_parameter(f"bias_{name}{suffix}", None)
        if self.proj_size:
            weight = self._initial_weight(1, self.proj_size, self.hidden_size, device, dtype)
            self.register_parameter(f"weight_hr{suffix}", nn.Parameter(weight))

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        """Real scalars of h, which a projection makes fewer, and of c."""
        return (self.proj_size or self.hidden_size, self.hidden_size)[: self.states]

    def _initial_weight(self, gates: int, outputs: int, inputs: int, device: Any, dtype: Any) -> Tensor:
        size = self.algebra.size
        out_tuples, in_tuples = outputs // size, inputs // size
        return glorot((gates * out_tuples, in_tuples, size), in_tuples, out_tuples, device, dtype)

    def reset_parameters(self) -> None:
        """Draw the weights anew, each gate by itself, and set the biases to zero."""
        for name, p in self.named_parameters(recurse=False):
            if name.startswith("weight"):
                gates = 1 if name.startswith("weight_hr") else self.gates
                outputs, inputs = (n * self.algebra.size for n in p.shape[:2])
                write_(p, self._initial_weight(gates, outputs // gates, inputs, p.device, p.dtype))
            else:
                write_(p, torch.zeros(p.shape, device=p.device, dtype=p.dtype))

    def _run(self, x: Tensor, state: State, suffix: str, reverse: bool, active: Tensor | None) -> tuple[Tensor, State]:
        """One layer in one direction.

        Args:
            x: (time, batch, columns, height): column-outermost tuples.
            state: each (batch, columns, height).
            suffix: of the names of its parameters.
            reverse: go from the last to the first.
            active: (time, batch, 1, 1), False behind the end of a sequence, where the state stays as it is.

        Returns:
            The outputs, (time, batch, columns, height), and the last state.
        """
        of = lambda name: getattr(self, f"{name}{suffix}")
        time = x.shape[0]
        product = self._products.choose(x)
        gated = (self._columns.columns, self.gates, -1)
        inputs = product.apply(x.flatten(-2), of("weight_ih"), of("bias_ih"), "columns", product).unflatten(-1, gated)

        def ready(name: str) -> tuple[Tensor, Form | None]:  # for all steps at once
            weight, form = expand_floats(of(name), product)
            return weight, None if form is None else CachedForm(form, time)

        weight, form = ready("weight_hh")
        narrow, narrow_form = ready("weight_hr") if self.proj_size else (None, None)
        outputs = []
        for t in reversed(range(time)) if reverse else range(time):
            hidden = product.apply(state[0].flatten(-2), weight, of("bias_hh"), "columns", form)
            new = type(self).step(inputs[t], hidden.unflatten(-1, gated), state)
            if narrow is not None:
                h = product.apply(new[0].flatten(-2), narrow, None, "columns", narrow_form)
                new = (h.unflatten(-1, gated[::2]), *new[1:])
            if active is not None:
                new = tuple(torch.where(active[t], a, b) for a, b in zip(new, state, strict=True))
            state = new
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs), state

    def _checked_state(self, hx: Any, leading: tuple[int, ...], like: Tensor) -> State:
        """The states given, or zeros; in columns: (*, columns, height)."""
        shapes = [(*leading, size) for size in self._state_sizes]
        if hx is None:
            return tuple(self._to_columns(like.new_zeros(shape)) for shape in shapes)
        pair = self.states > 1
        given, names = (hx, ("hx[0]", "hx[1]")) if pair else ((hx,), ("hx",))
        if not isinstance(given, (tuple, list)) or [isinstance(s, Tensor) for s in given] != [True] * len(shapes):
            raise TypeError(
                f"hx must be {'the pair (h, c) of tensors' if pair else 'a tensor'}, got {type(hx).__name__}"
            )
        for name, s, shape in zip(names, given, shapes, strict=False):
            if tuple(s.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(s.shape)}")
            check_dtype(s, like, name)
        return tuple(self._to_columns(s) for s in given)

    def _to_columns(self, x: Tensor) -> Tensor:
        return self._columns.outermost(x, -1).unflatten(-1, (self._columns.columns, -1))

    def _from_columns(self, x: Tensor) -> Tensor:
        return self._columns.innermost(x.flatten(-2), -1)

    def extra_repr(self) -> str:
        """The arguments that are not defaults."""
        text = f"{self.input_size}, {self.hidden_size}, algebra={self.algebra}"
        text += "" if self.bias else ", bias=False"
        return text + ("" if self.bits is None else f", bits={self.bits}")


class _Cell(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, algebra, bits)
        self._add_parameters(input_size, "", device, dtype)
        quantize_parameters_(self, bits)

    def _next(self, input: Tensor, hx: Any) -> State:
        if input.dim() not in (1, 2):
            raise ValueError(
                f"input must be (batch, {self.input_size}) or ({self.input_size},), got {tuple(input.shape)}"
            )
        check_input(input, self.input_size, next(self.parameters()), "input_size")
        leading = tuple(input.shape[:-1])
        state = self._checked_state(hx, leading, input)
        if input.dim() == 1:
            input, state = input.unsqueeze(0), tuple(s.unsqueeze(0) for s in state)
        _, state = self._run(self._to_columns(input).unsqueeze(0), state, "", False, None)
        return tuple(self._from_columns(s).reshape(*leading, self.hidden_size) for s in state)


class AlgebraGRUCell(_Cell):
    """One step of a GRU over an algebra: `torch.nn.GRUCell`, see `AlgebraGRU`.

    Args:
        input_size, hidden_size, bias, device, dtype, algebra, bits: as in `AlgebraGRU`.

    Shape: input (N, input_size) or (input_size,), hx (N, hidden_size) or (hidden_size,), zeros if not given; returns
    the new hx.

    Raises:
        ValueError: a width that is not a multiple of A, an input or hx of another shape.
        TypeError: an input or hx of another dtype than the parameters, outside autocast.

    >>> AlgebraGRUCell(8, 12, algebra="H")(torch.ones(5, 8)).shape
    torch.Size([5, 12])
    """

    gates, states, step = 3, 1, staticmethod(_gru)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._next(input, hx)[0]


class AlgebraLSTMCell(_Cell):
    """One step of an LSTM over an algebra: `torch.nn.LSTMCell`, see `AlgebraLSTM`.

    Args:
        input_size, hidden_size, bias, device, dtype, algebra, bits: as in `AlgebraLSTM`.

    Shape: input (N, input_size) or (input_size,), hx = (h, c), each (N, hidden_size) or (hidden_size,), zeros if not
    given; returns the new (h, c).

    Raises:
        ValueError: a width that is not a multiple of A, an input or hx of another shape.
        TypeError: an input or hx of another dtype than the parameters, outside autocast.

    >>> h, c = AlgebraLSTMCell(8, 12, algebra="M2R")(torch.ones(5, 8))
    >>> h.shape, c.shape
    (torch.Size([5, 12]), torch.Size([5, 12]))
    """

    gates, states, step = 4, 2, staticmethod(_lstm)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._next(input, hx)
        return h, c


class _Layers(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        algebra: str | Algebra,
        bits: int | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, algebra, bits)
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability, between 0 and 1, got {dropout}")
        if proj_size and self.states == 1:
            raise ValueError(f"proj_size={proj_size} is for LSTMs only, as in torch.nn; leave it out")
        if proj_size and tuples_in(proj_size, self.algebra, "proj_size") * self.algebra.size >= hidden_size:
            raise ValueError(f"proj_size={proj_size} must be below hidden_size={hidden_size}")
        self.num_layers, self.batch_first, self.dropout = num_layers, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else self._state_sizes[0] * len(self._directions)
            for direction in self._directions:
                self._add_parameters(width, f"_l{layer}{direction}", device, dtype)
        quantize_parameters_(self, bits)

    @property
    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _forward(self, input: Tensor | PackedSequence, hx: Any) -> tuple[Any, State]:
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"input must be (time, batch, {self.input_size}) or (time, {self.input_size}), got {tuple(input.shape)}"
            )
        check_input(input, self.input_size, next(self.parameters()), "input_size")
        if input.dim() == 2:
            if hx is not None:
                hx = tuple(s.unsqueeze(1) for s in hx) if isinstance(hx, (tuple, list)) else hx.unsqueeze(1)
            out, state = self._layers(input.unsqueeze(1), hx, None)
            return out.squeeze(1), tuple(s.squeeze(1) for s in state)
        out, state = self._layers(input.transpose(0, 1) if self.batch_first else input, hx, None)
        return (out.transpose(0, 1) if self.batch_first else out), state

    def _packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, State]:
        """Padded in sorted order, with the states of ended sequences held, and packed again."""
        _, sizes, order, back = input
        padded, lengths = pad_packed_sequence(PackedSequence(input.data, sizes))
        if hx is not None and order is not None:
            hx = (
                tuple(s.index_select(1, order) for s in hx)
                if isinstance(hx, (tuple, list))
                else hx.index_select(1, order)
            )
        active = torch.arange(len(padded)).unsqueeze(1) < lengths
        out, state = self._layers(padded, hx, active.to(padded.device)[..., None, None])
        packed = PackedSequence(pack_padded_sequence(out, lengths).data, sizes, order, back)
        return packed, state if back is None else tuple(s.index_select(1, back) for s in state)

    def _layers(self, x: Tensor, hx: Any, active: Tensor | None) -> tuple[Tensor, State]:
        if x.shape[0] == 0:
            raise ValueError("input must have at least one step of time")
        given = self._checked_state(hx, (self.num_layers * len(self._directions), x.shape[1]), x)
        x, last = self._to_columns(x), []
        for layer in range(self.num_layers):
            sides = []
            for i, direction in enumerate(self._directions):
                state = tuple(s[layer * len(self._directions) + i] for s in given)
                out, state = self._run(x, state, f"_l{layer}{direction}", bool(direction), active)
                sides.append(out)
                last.append(state)
            x = torch.cat(sides, -1)  # in each column, the tuples of one direction, then of the other
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        if active is not None:
            x = x * active
        return self._from_columns(x), tuple(self._from_columns(torch.stack(s)) for s in zip(*last, strict=True))

    def extra_repr(self) -> str:
        """The arguments that are not defaults."""
        text = super().extra_repr()
        for name, default in (
            ("num_layers", 1),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
            ("proj_size", 0),
        ):
            value = getattr(self, name)
            text += "" if value == default else f", {name}={value}"
        return text


class AlgebraGRU(_Layers):
    r"""A gated recurrent unit over an algebra; arguments, layouts and parameter names as `torch.nn.GRU`.

    .. math::
        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \
        n &= 	anh(W_{in} x + b_{in} + r * (W_{hn} h + b_{hn})) \
        h' &= (1 - z) * n + z * h

    W x are products of the algebra; sigma, tanh and * act on each component. With LogTensor weights the hidden weight
    is decoded once for all steps of a sequence, and not kept for the backward pass.

    Args:
        input_size, hidden_size: real scalars, multiples of A.
        num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as in torch.nn. Dropout between layers is
            component-wise.
        proj_size: 0, since torch.nn has no projections but in LSTMs.
        algebra: name or `Algebra`.
        bits: None for float parameters, or B for LogTensors.

    Shape: input (time, batch, input_size), (batch, time, input_size) if `batch_first`, (time, input_size), or a
    `PackedSequence`; hx (num_layers * directions, batch, hidden_size), zeros if not given. Returns the output,
    likewise with hidden_size * directions features, and the last hx.
    Weights are (3 * hidden_size / A, inputs / A, A), gates r, z, n, each component Glorot-initialised by itself; biases
    (3 * hidden_size,), zero.

    Raises:
        ValueError: a width that is not a multiple of A, an input or hx of another shape, no time steps.
        TypeError: an input or hx of another dtype than the parameters, outside autocast.

    Source: AlgebraNets, sections 2.3 and 4.4.

    >>> out, h = AlgebraGRU(8, 12, num_layers=2, algebra="M2R")(torch.ones(7, 5, 8))
    >>> out.shape, h.shape
    (torch.Size([7, 5, 12]), torch.Size([2, 5, 12]))
    """

    gates, states, step = 3, 1, staticmethod(_gru)

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        out, (h,) = self._forward(input, hx)
        return out, h


class AlgebraLSTM(_Layers):
    r"""Long short-term memory over an algebra; arguments, layouts and parameter names as `torch.nn.LSTM`.

    .. math::
        (i, f, g, o) &= (\sigma, \sigma, 	anh, \sigma)(W_i x + b_i + W_h h + b_h) \
        c' &= f * c + i * g, \qquad h' = o * 	anh(c')

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype, algebra, bits: as
            in `AlgebraGRU`.
        proj_size: a multiple of A below hidden_size: h' is W_r (o * tanh(c')), of so many real scalars, in the output
            too. Default 0: no projection.

    Shape: as in `AlgebraGRU`; hx is (h, c), and weights have four gates (i, f, g, o).

    Raises:
        ValueError: as `AlgebraGRU`; a proj_size that is not a multiple of A below hidden_size.
        TypeError: as `AlgebraGRU`.

    Source: AlgebraNets, section 2.3 ("tanh and sigmoid can also be applied component-wise as part of GRUs and LSTMs").

    >>> out, (h, c) = AlgebraLSTM(8, 12, batch_first=True, bidirectional=True, algebra="H")(torch.ones(5, 7, 8))
    >>> out.shape, c.shape
    (torch.Size([5, 7, 24]), torch.Size([2, 5, 12]))
    """

    gates, states, step = 4, 2, staticmethod(_lstm)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        out, (h, c) = self._forward(input, hx)
        return out, (h, c)
