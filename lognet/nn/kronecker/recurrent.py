"""LSTM and GRU whose gates are factored linear layers: PHMs as in R2D2, or sums of Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...tensor.recompute import recomputed
from ..checks import check_divides
from ..parameters import quantize_parameters_
from ..recurrence import GRU, LSTM, Recurrence, State, unroll
from .factored import FactoredLinear, MakeLinear
from .phm import PHMLinear, Rule, make_rule
from .shapeshifter import KroneckerLinear
from .sums import prepared_linear


def printed_lstm(x: Tensor, h: Tensor, state: Sequence[Tensor]) -> State:
    """The LSTM with its last equation as R2D2, section 3.1, prints it: h' = o c', with neither sigma(o) nor tanh(c')."""
    i, f, g, o = (x + h).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return o * c, c


class FactoredRNN(Recurrence):
    """The base of the recurrent layers here.

    Every layer and direction has `gates` factored linear layers from its input and as many from its hidden state, or
    with `fused` one of each that gives all gates; with `proj_size` one more that projects the hidden state. The
    matrices are built once for a whole sequence where the cost model finds that cheaper. Where factors are LogTensors
    the sequence is run again in the backward pass: the graph keeps codes, inputs and outputs.
    """

    projections: nn.ModuleList | None

    def __init__(
        self,
        shape: tuple[Any, ...],
        fused: bool,
        make_linear: MakeLinear,
        impl: str,
        bits: int | None,
        factory: dict[str, Any],
    ) -> None:
        super().__init__(*shape)
        self.fused, self.impl = fused, impl
        self.input_layers, self.hidden_layers = nn.ModuleList(), nn.ModuleList()
        self.projections = nn.ModuleList() if self.proj_size else None
        count, width = (1, self.gates) if fused else (self.gates, 1)
        make = lambda size: nn.ModuleList(make_linear(size, width * self.hidden_size) for _ in range(count))
        for name in self._names():
            self.input_layers.append(make(self._inputs_of(name)))
            self.hidden_layers.append(make(self._state_sizes[0]))
            if self.projections is not None:
                self.projections.append(nn.ModuleList([make_linear(self.hidden_size, self.proj_size)]))
            for prefix in ("bias_ih_", "bias_hh_")[: 1 + self.hidden_bias] if self.bias else ():
                value = torch.empty(self.gates * self.hidden_size, **factory)
                self.register_parameter(prefix + name, nn.Parameter(value))
        self._reset_biases()
        quantize_parameters_(self, bits)

    @property
    def hidden_bias(self) -> bool:
        """Whether there is a bias_hh too: gates of an LSTM add both biases, and one does; those of a GRU do not."""
        return self.states == 1

    def reset_parameters(self) -> None:
        """Draw new values of all weights and biases. Rules of PHM layers stay."""
        for layer in self.modules():
            if isinstance(layer, FactoredLinear):
                layer.reset_parameters()
        self._reset_biases()

    def _reset_biases(self) -> None:
        for name, p in self.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.uniform_(p, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def _layer(self, index: int, data: Tensor, sizes: list[int], state: State, reverse: bool) -> tuple[Tensor, State]:
        name = self._names()[index]
        groups: list[Any] = [layers[index] for layers in (self.input_layers, self.hidden_layers)]
        groups += [] if self.projections is None else [self.projections[index]]
        factors = [[tuple(linear.factors()) for linear in group] for group in groups]
        biases = [getattr(self, prefix + name, None) for prefix in ("bias_ih_", "bias_hh_")]
        run = partial(self._sequence, sizes, reverse, [[len(f) for f in group] for group in factors])
        output, *final = recomputed(run, data, *state, *biases, *(t for group in factors for f in group for t in f))
        return output, tuple(final)

    def _sequence(
        self, sizes: list[int], reverse: bool, lengths: list[list[int]], data: Tensor, *tensors: Any
    ) -> tuple[Tensor, ...]:
        """`unroll` as a function of tensors alone; `lengths` says how many factors each matrix of each group has."""
        state, (bias_ih, bias_hh), flat = tensors[: self.states], tensors[self.states :][:2], tensors[self.states + 2 :]
        rest = iter(flat)
        factors = [[tuple([next(rest) for _ in range(length)]) for length in group] for group in lengths]
        prepared = lambda group, rows, columns: prepared_linear(group, (rows, columns), self.impl, len(data))
        rows = self.gates * self.hidden_size // len(factors[0])
        hidden = prepared(factors[1], rows, self._state_sizes[0])
        narrow = prepared(factors[2], self.proj_size, self.hidden_size) if self.proj_size else None
        project = None if narrow is None else lambda h: narrow(h, None)
        gates = prepared(factors[0], rows, data.shape[-1])(data, bias_ih)
        output, final = unroll(self.cell, gates, sizes, state, reverse, lambda h: hidden(h, bias_hh), project)
        return (output, *final)


class _PHM(FactoredRNN):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        n: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        fused: bool = False,
        printed: bool = False,
        rule: Rule = None,
        share_rule: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        sizes = {"input_size": input_size, "hidden_size": hidden_size}
        check_divides(n, **sizes, **({"proj_size": proj_size} if proj_size else {}))
        if printed and self.states == 1:
            raise ValueError("printed=True is for PHMLSTM only: the paper prints no GRU; leave it out")
        rule = make_rule(n, rule, True, factory) if share_rule else rule
        make = lambda d, k: PHMLinear(d, k, n, False, rule=rule, impl=impl, **factory)
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__(shape, fused, make, impl, bits, factory)
        self.n, self.printed = n, printed
        if printed:
            self.cell = printed_lstm

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n={self.n}"


class PHMLSTM(_PHM, LSTM):
    """An LSTM whose linear transformations are PHMs: `torch.nn.LSTM` with a smaller number of parameters.

    Args:
        input_size, hidden_size: multiples of n.
        n: dimension of the hypercomplex algebra; n = 1 is an LSTM.
        num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as in `torch.nn.LSTM`.
        proj_size: a multiple of n below hidden_size: one more PHM a layer projects the hidden state to so many
            features. Default 0: no projection.
        fused: False has eight PHMs a layer, one for each gate from the input and from the hidden state, as the
            paper counts its parameters; True two, each giving all four gates, as its equations have it.
        printed: the last equation as the paper prints it, ``h = o * c`` with neither sigma(o) nor tanh(c). Default:
            the usual ``h = sigma(o) * tanh(c)``.
        rule: as in `PHMLinear`; a parameter is shared by all PHMs.
        share_rule: one A for all PHMs of this module.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, or the width of LogTensor parameters.

    Attributes:
        input_layers, hidden_layers: for every layer and direction a list of `PHMLinear` in the order of the gates
            i, f, g, o.
        projections: for every layer and direction a list of one `PHMLinear`; None without `proj_size`.
        bias_ih_l0, bias_ih_l0_reverse, ...: (4 hidden_size,), one for both sides, as in the paper.

    Shapes: as in `torch.nn.LSTM`, packed sequences included: input (L, N, input_size), state
    (num_layers * directions, N, hidden_size).

    Raises:
        ValueError: n does not divide the sizes; an input or state of the wrong shape, no time steps.
        TypeError: an input or state of another dtype than the parameters, outside autocast.

    Source: R2D2, section 3.1; parameter counts of table 1.

    >>> lstm = PHMLSTM(300, 300, n=10)
    >>> sum(p.numel() for p in lstm.parameters()), lstm(torch.randn(5, 2, 300))[0].shape
    (81200, torch.Size([5, 2, 300]))
    """


class PHMGRU(_PHM, GRU):
    """A GRU whose linear transformations are PHMs: `torch.nn.GRU` with a smaller number of parameters.

    Six PHMs a layer, or two with `fused`; gates in the order r, z, n of `torch.nn.GRU`, and as there two biases,
    bias_ih and bias_hh, each (3 hidden_size,).

    Args:
        input_size, hidden_size, n, num_layers, bias, batch_first, dropout, bidirectional, fused, rule, share_rule,
            impl, bits, device, dtype: as in `PHMLSTM`.
        proj_size, printed: for `PHMLSTM` only.

    Shapes: as in `torch.nn.GRU`, packed sequences included: input (L, N, input_size), state
    (num_layers * directions, N, hidden_size).

    Raises:
        TypeError, ValueError: as `PHMLSTM`.

    >>> gru = PHMGRU(8, 12, n=4, bidirectional=True)
    >>> gru(torch.randn(5, 2, 8))[0].shape
    torch.Size([5, 2, 24])
    """


class _Kronecker(FactoredRNN):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rank: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        fused: bool = False,
        sizes: str = "auto",
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        make = lambda d, k: KroneckerLinear(d, k, rank, False, sizes=sizes, impl=impl, **factory)
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__(shape, fused, make, impl, bits, factory)
        self.rank = rank

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class KroneckerLSTM(_Kronecker, LSTM):
    """An LSTM whose linear transformations are sums of `rank` Kronecker products.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, fused, impl, bits,
            device, dtype: as in `PHMLSTM`; any sizes.
        rank, sizes: as in `KroneckerLinear`.

    Shapes: as in `PHMLSTM`.

    Raises:
        TypeError, ValueError: as `KroneckerLinear`; an input or state of the wrong shape or dtype, no time steps.

    >>> lstm = KroneckerLSTM(6, 8, rank=2)
    >>> lstm(torch.randn(5, 6))[0].shape
    torch.Size([5, 8])
    """


class KroneckerGRU(_Kronecker, GRU):
    """A GRU whose linear transformations are sums of `rank` Kronecker products.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, fused, impl, bits, device,
            dtype: as in `PHMGRU`; any sizes.
        rank, sizes: as in `KroneckerLinear`.
        proj_size: for `KroneckerLSTM` only.

    Shapes: as in `PHMGRU`.

    Raises:
        TypeError, ValueError: as `KroneckerLSTM`.

    >>> gru = KroneckerGRU(6, 8, rank=2)
    >>> gru(torch.randn(5, 6))[0].shape
    torch.Size([5, 8])
    """
