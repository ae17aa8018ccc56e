"""GRU and LSTM over an algebra: torch.nn's equations, with the algebra's products and component-wise gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...tensor.floats import CachedForm, Form, expand_floats
from ..parameters import check_bits, glorot, quantize_parameters_, write_
from ..recurrence import GRU, LSTM, Cell, Recurrence, State, checked_state, gru, lstm, unroll
from .algebras import Algebra, tuples_in
from .forms import columns_of
from .linear import check_input
from .masks import Prunable
from .multiply import products_of


class _Weights(Prunable):
    """The base of layers and cells: parameters named and gated as torch's, and one layer in one direction.

    Activations and states are column-outermost, (*, columns, height).
    """

    gates: int
    states: int
    cell: Cell
    input_size: int
    hidden_size: int
    bias: bool
    proj_size = 0

    def _prepare(self, algebra: str | Algebra, bits: int | None) -> None:
        self.algebra, self.bits = Algebra.of(algebra), check_bits(bits)
        tuples_in(self.input_size, self.algebra, "input_size")
        tuples_in(self.hidden_size, self.algebra, "hidden_size")
        self._products = products_of(self.algebra)
        self._columns = columns_of(self.algebra)

    def _add_parameters(self, input_size: int, suffix: str, device: Any, dtype: Any) -> None:
        for name, inputs in (("ih", input_size), ("hh", self.proj_size or self.hidden_size)):
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

    def _initial_weight(self, gates: int, outputs: int, inputs: int, device: Any, dtype: Any) -> Tensor:
        size = self.algebra.size
        out_tuples, in_tuples = outputs // size, inputs // size
        return glorot((gates * out_tuples, in_tuples, size), in_tuples, out_tuples, device, dtype)

    def reset_parameters(self) -> None:
        """Draw new values of the weights, each gate by itself, and set the biases to zero."""
        for name, p in self.named_parameters(recurse=False):
            if name.startswith("weight"):
                gates = 1 if name.startswith("weight_hr") else self.gates
                outputs, inputs = (n * self.algebra.size for n in p.shape[:2])
                write_(p, self._initial_weight(gates, outputs // gates, inputs, p.device, p.dtype))
            else:
                write_(p, torch.zeros(p.shape, device=p.device, dtype=p.dtype))

    def _unroll(self, suffix: str, data: Tensor, sizes: list[int], state: State, reverse: bool) -> tuple[Tensor, State]:
        """`unroll` with the parameters of a suffix."""
        of = lambda name: getattr(self, f"{name}{suffix}")
        product = self._products.choose(data)
        split = (self._columns.columns, -1)

        def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None) -> Tensor:
            return product.apply(x.flatten(-2), weight, bias, "columns", form).unflatten(-1, split)

        def ready(name: str) -> tuple[Tensor, Form | None]:  # decoded once for all steps
            weight, form = expand_floats(of(name), product)
            return weight, None if form is None else CachedForm(form, len(sizes))

        weight, form = ready("weight_hh")
        hidden = lambda h: multiply(h, weight, of("bias_hh"), form)
        project = None
        if self.proj_size:
            narrow, narrow_form = ready("weight_hr")
            project = lambda h: multiply(h, narrow, None, narrow_form)
        gates = multiply(data, of("weight_ih"), of("bias_ih"), product)
        return unroll(self.cell, gates, sizes, state, reverse, hidden, project)

    def _enter(self, x: Tensor) -> Tensor:
        return self._columns.outermost(x, -1).unflatten(-1, (self._columns.columns, -1))

    def _leave(self, x: Tensor) -> Tensor:
        return self._columns.innermost(x.flatten(-2), -1)

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, algebra={self.algebra}"
        return text + ("" if self.bits is None else f", bits={self.bits}")


class _Cell(_Weights):
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
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._prepare(algebra, bits)
        self._add_parameters(input_size, "", device, dtype)
        quantize_parameters_(self, bits)

    def _next(self, input: Tensor, hx: Any) -> State:
        if input.dim() not in (1, 2):
            raise ValueError(
                f"input must be (batch, {self.input_size}) or ({self.input_size},), got {tuple(input.shape)}"
            )
        check_input(input, self.input_size, next(self.parameters()), "input_size")
        shape = (*input.shape[:-1], self.hidden_size)
        state = checked_state(hx, [shape] * self.states, input)
        if input.dim() == 1:
            input, state = input.unsqueeze(0), tuple(s.unsqueeze(0) for s in state)
        state = tuple(self._enter(s) for s in state)
        _, state = self._unroll("", self._enter(input), [len(input)], state, False)
        return tuple(self._leave(s).reshape(shape) for s in state)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias else ', bias=False'}{super().extra_repr()}"


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

    gates, states, cell = 3, 1, staticmethod(gru)

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

    gates, states, cell = 4, 2, staticmethod(lstm)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._next(input, hx)
        return h, c


class _Layers(_Weights, Recurrence):
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
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__(*shape)
        self._prepare(algebra, bits)
        if proj_size:
            tuples_in(proj_size, self.algebra, "proj_size")
        for name in self._names():
            self._add_parameters(self._inputs_of(name), f"_{name}", device, dtype)
        quantize_parameters_(self, bits)

    def _layer(self, index: int, data: Tensor, sizes: list[int], state: State, reverse: bool) -> tuple[Tensor, State]:
        return self._unroll(f"_{self._names()[index]}", data, sizes, state, reverse)


class AlgebraGRU(_Layers, GRU):
    r"""A gated recurrent unit over an algebra; arguments, layouts and parameter names as `torch.nn.GRU`.

    .. math::
        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r * (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) * n + z * h

    W x are products of the algebra; sigma, tanh and * act on each component. With LogTensor weights the hidden weight
    is decoded once for all steps of a sequence, and not kept for the backward pass.

    Args:
        input_size, hidden_size: real scalars, multiples of A.
        num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as in torch.nn. Dropout between layers is
            component-wise.
        proj_size: 0, since torch.nn has projections in LSTMs only.
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


class AlgebraLSTM(_Layers, LSTM):
    r"""Long short-term memory over an algebra; arguments, layouts and parameter names as `torch.nn.LSTM`.

    .. math::
        (i, f, g, o) &= (\sigma, \sigma, \tanh, \sigma)(W_i x + b_i + W_h h + b_h) \\
        c' &= f * c + i * g, \qquad h' = o * \tanh(c')

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
