"""LSTM and GRU whose gates are PHMs, as in R2D2, or sums of Kronecker products."""

from __future__ import annotations

from typing import Any

import torch

from ..sizes import check_divides
from .factored_recurrent import FactoredGRU, FactoredLSTM, FactoredRNN, MakeLinear
from .phm import PHMLinear, Rule, make_rule
from .shapeshifter import KroneckerLinear


def _phm(n: int, rule: Rule, share_rule: bool, impl: str, factory: dict[str, Any], **sizes: int) -> MakeLinear:
    check_divides(n, **sizes)
    if share_rule:
        rule = make_rule(n, rule, True, factory)
    return lambda d, k: PHMLinear(d, k, n, False, rule=rule, impl=impl, **factory)


class PHMLSTM(FactoredLSTM):
    """An LSTM whose linear transformations are PHMs: `torch.nn.LSTM` with a smaller number of parameters.

    Args:
        input_size, hidden_size: multiples of n.
        n: dimension of the hypercomplex algebra; n = 1 is an LSTM.
        num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as in `torch.nn.LSTM`.
        fused: False has eight PHMs a layer, one for each gate from the input and from the hidden state, as the
            paper counts its parameters; True two, each giving all four gates, as its equations have it.
        printed: the last equation as the paper prints it, ``h = o * c`` with neither sigma(o) nor tanh(c). Default:
            the usual ``h = sigma(o) * tanh(c)``.
        rule: as in `PHMLinear`; a parameter is shared by all PHMs.
        share_rule: one A for all PHMs of this module.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, else each is a LogTensor of so many bits.

    Attributes:
        input_layers, hidden_layers: for every layer and direction a list of `PHMLinear` in the order of the gates
            i, f, g, o.
        bias_ih_l0, bias_ih_l0_reverse, ...: (4 hidden_size,), one for both sides, as in the paper.

    Shapes: as in `torch.nn.LSTM`, packed sequences included: input (L, N, input_size), state
    (num_layers * directions, N, hidden_size).

    Raises:
        ValueError: n does not divide the sizes; an input or state of the wrong shape.

    Source: R2D2, section 3.1; parameter counts of table 1.

    >>> lstm = PHMLSTM(300, 300, n=10)
    >>> sum(p.numel() for p in lstm.parameters()), lstm(torch.randn(5, 2, 300))[0].shape
    (81200, torch.Size([5, 2, 300]))
    """

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
        make = _phm(n, rule, share_rule, impl, factory, input_size=input_size, hidden_size=hidden_size)
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, fused)
        super().__init__(*shape, make, impl, bits, factory)
        self.n, self.printed = n, printed

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n={self.n}"


class PHMGRU(FactoredGRU):
    """A GRU whose linear transformations are PHMs: `torch.nn.GRU` with a smaller number of parameters.

    Six PHMs a layer, or two with `fused`; gates in the order r, z, n of `torch.nn.GRU`, and as there two biases,
    bias_ih and bias_hh, each (3 hidden_size,).

    Args:
        input_size, hidden_size, n, num_layers, bias, batch_first, dropout, bidirectional, fused, rule, share_rule,
            impl, bits, device, dtype: as in `PHMLSTM`.

    Shapes: as in `torch.nn.GRU`, packed sequences included: input (L, N, input_size), state
    (num_layers * directions, N, hidden_size).

    Raises:
        ValueError: as `PHMLSTM`.

    >>> gru = PHMGRU(8, 12, n=4, bidirectional=True)
    >>> gru(torch.randn(5, 2, 8))[0].shape
    torch.Size([5, 2, 24])
    """

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
        *,
        fused: bool = False,
        rule: Rule = None,
        share_rule: bool = False,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        make = _phm(n, rule, share_rule, impl, factory, input_size=input_size, hidden_size=hidden_size)
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, fused)
        super().__init__(*shape, make, impl, bits, factory)
        self.n = n

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n={self.n}"


class _KroneckerRNN(FactoredRNN):
    """The arguments of the two below."""

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
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, fused)
        super().__init__(*shape, make, impl, bits, factory)
        self.rank = rank

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class KroneckerLSTM(_KroneckerRNN, FactoredLSTM):
    """An LSTM whose linear transformations are sums of `rank` Kronecker products.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, fused, impl, bits, device,
            dtype: as in `PHMLSTM`; any sizes.
        rank, sizes: as in `KroneckerLinear`.

    Shapes: as in `PHMLSTM`.

    Raises:
        TypeError, ValueError: as `KroneckerLinear`; an input or state of the wrong shape.

    >>> lstm = KroneckerLSTM(6, 8, rank=2)
    >>> lstm(torch.randn(5, 6))[0].shape
    torch.Size([5, 8])
    """


class KroneckerGRU(_KroneckerRNN, FactoredGRU):
    """A GRU whose linear transformations are sums of `rank` Kronecker products.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, fused, impl, bits, device,
            dtype: as in `PHMGRU`; any sizes.
        rank, sizes: as in `KroneckerLinear`.

    Shapes: as in `PHMGRU`.

    Raises:
        TypeError, ValueError: as `KroneckerLinear`; an input or state of the wrong shape.

    >>> gru = KroneckerGRU(6, 8, rank=2)
    >>> gru(torch.randn(5, 6))[0].shape
    torch.Size([5, 8])
    """
