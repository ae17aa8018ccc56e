"""PHM layers: parameterised hypercomplex multiplication, called R2D2 in its first paper.

H = sum_i A_i (x) S_i with a learned rule A (n, n, n), the multiplication table of an n-dimensional algebra, and the
weights S (n, out / n, in / n): about 1 / n of the parameters of a dense layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tensor.log_tensor import LogTensor
from ...tensor.recompute import recomputed
from ..checks import check_count, check_divides
from ..convolution import ConvolutionBase, Size
from ..parameters import quantize_parameters_
from .factored import FactoredLinear
from .sums import check_input, kronecker_sum, nearest_kronecker_sum

Rule = str | Tensor | None

# Row p, column s of the left multiplication by a quaternion: which component (1, i, j, k), and its sign.
_HAMILTON = ((+1, -2, -3, -4), (+2, +1, -4, +3), (+3, +4, +1, -2), (+4, -3, +2, +1))


def hamilton_rule(device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
    """A (4, 4, 4) such that sum_i A_i q_i is the matrix of the Hamilton product with the quaternion q from the left.

    Args:
        device, dtype: of the result; torch's defaults if not given.

    Source: R2D2, equations 2.6 and 2.7.

    >>> i, j = torch.eye(4)[1], torch.eye(4)[2]
    >>> torch.einsum("ips,i->ps", hamilton_rule(), i) @ j  # i j = k
    tensor([0., 0., 0., 1.])
    """
    rule = torch.zeros(4, 4, 4, device=device, dtype=dtype)
    for row, signed in enumerate(_HAMILTON):
        for column, component in enumerate(signed):
            rule[abs(component) - 1, row, column] = 1.0 if component > 0 else -1.0
    return rule


def make_rule(n: int, rule: Rule, train_rule: bool, factory: dict[str, Any]) -> Tensor | None:
    """The A of a layer: shared as it is if given as a parameter, else a new one; None at n = 1, where it is dropped.

    Source: R2D2, section 2.3 (n = 1).
    """
    if isinstance(rule, str):
        if rule != "hamilton":
            raise ValueError(f"rule must be None, 'hamilton' or a tensor of shape (n, n, n), got {rule!r}")
        if n != 4:
            raise ValueError(f"rule='hamilton' is the product of quaternions and needs n=4, got n={n}")
        rule = hamilton_rule(**factory)
    if rule is not None and not isinstance(rule, Tensor):
        raise TypeError(f"rule must be None, 'hamilton' or a tensor of shape (n, n, n), got {type(rule).__name__}")
    if isinstance(rule, Tensor):
        dtype = factory["dtype"] or torch.get_default_dtype()
        if tuple(rule.shape) != (n, n, n):
            raise ValueError(f"rule must have shape {(n, n, n)} for n={n}, got {tuple(rule.shape)}")
        if isinstance(rule, (nn.Parameter, LogTensor)):
            if rule.dtype != dtype:
                raise ValueError(f"rule is a parameter of {rule.dtype} in a layer of {dtype}; make both of one dtype")
            return rule
        value = rule.detach().to(**factory).to(dtype).clone()
        return nn.Parameter(value) if train_rule else value
    if n == 1:
        return None
    value = torch.empty(n, n, n, **factory)
    nn.init.normal_(value, std=n**-0.5)
    return nn.Parameter(value) if train_rule else value


class PHMLinear(FactoredLinear):
    """A linear layer ``y = x H^T + bias`` with H = sum_i A_i (x) S_i.

    Args:
        in_features, out_features: d and k, both multiples of n.
        n: dimension of the hypercomplex algebra. n = 1 is a linear layer, without an A.
        bias: as in `torch.nn.Linear`.
        rule: None starts A at random; "hamilton" (n = 4) from the product of quaternions; a tensor (n, n, n) from
            its values; an `nn.Parameter` is taken as it is, so that layers given the same one share it.
        train_rule: False keeps A fixed, as a buffer.
        impl: "auto", "materialize" or "contract"; see `lognet.nn.kronecker_linear`.
        bits: None for float parameters, or the width of LogTensor parameters. These and `lognet.wrap` mask the zeros of
            a rule taken from an algebra, because a ladder has no zero; they stay zero. In float they are trained.
        device, dtype: as in `torch.nn.Linear`.

    Attributes:
        A: (n, n, n), None at n = 1. Initial variance 1 / n.
        S: (n, out_features / n, in_features / n). Glorot's variance 2 / (in_features + out_features); since
            var(H) = n var(A) var(S), H then has it too.
        bias: (out_features,) or None.

    Shapes: (*, in_features) to (*, out_features).

    Raises:
        ValueError: n does not divide both sizes (the message has the nearest legal ones), or an unfit rule.

    Source: R2D2, section 2.2; A[i, p, s] and S[i, q, t] here are A_s[p, i] and S_t[i, q] there. The initialisation
    is ours, the paper gives none.

    >>> layer = PHMLinear(512, 2048, n=16, bias=False)
    >>> sum(p.numel() for p in layer.parameters()), layer(torch.randn(3, 512)).shape
    (69632, torch.Size([3, 2048]))
    """

    structural_zeros = ("A",)
    A: Tensor | None
    S: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n: int,
        bias: bool = True,
        *,
        rule: Rule = None,
        train_rule: bool = True,
        impl: str = "auto",
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, impl)
        factory = {"device": device, "dtype": dtype}
        self.n = check_divides(n, in_features=in_features, out_features=out_features)
        self._given_rule = isinstance(rule, nn.Parameter)
        _register_rule(self, make_rule(n, rule, train_rule, factory))
        self.S = nn.Parameter(torch.empty(n, out_features // n, in_features // n, **factory))
        self._make_bias(bias, factory)
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of S and the bias. The rule stays, because it may be shared or given."""
        nn.init.normal_(self.S, std=(2 / (self.in_features + self.out_features)) ** 0.5)
        super().reset_parameters()

    def factors(self) -> Sequence[Tensor]:
        """A and S; a one at n = 1."""
        return (self.S.new_ones(1, 1, 1) if self.A is None else self.A, self.S)

    def fit_(self, weight: Tensor) -> PHMLinear:
        """The nearest n-term Kronecker sum to `weight` in both A and S.

        Raises:
            ValueError: the rule is fixed, or was given as a parameter, which other layers may share.
        """
        with torch.no_grad():
            if self.A is None:
                self.S.copy_(weight.unsqueeze(0))
                return self
            if not isinstance(self.A, nn.Parameter):
                raise ValueError("fit_ moves the rule A too, and train_rule=False keeps it fixed; use train_rule=True")
            if self._given_rule:
                raise ValueError("fit_ moves the rule A too, and other layers may share this one; give no parameter")
            n, k, d = self.S.shape
            a, s = nearest_kronecker_sum(weight, (n, n, k, d), n)
            self.A.copy_(a)
            self.S.copy_(s)
        return self

    @property
    def weight(self) -> Tensor:
        """The dense H (out_features, in_features), computed at each access."""
        return kronecker_sum(*self.factors())

    def forward(self, input: Tensor) -> Tensor:
        if self.A is not None:
            return super().forward(input)
        check_input(input, self.bias, (self.out_features, self.in_features))
        return F.linear(input, self.S[0], self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n={self.n}"


class _PHMConv(ConvolutionBase):
    structural_zeros = ("A",)
    A: Tensor | None
    S: nn.Parameter

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        n: int,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        rule: Rule = None,
        train_rule: bool = True,
        bits: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            check_count(name, value)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.n = check_divides(n, **{"in_channels / groups": in_channels // groups, "out_channels": out_channels})
        self._set_geometry(kernel_size, stride, padding, dilation, padding_mode)
        _register_rule(self, make_rule(n, rule, train_rule, factory))
        s_shape = (n, out_channels // n, in_channels // groups // n, *self.kernel_size)
        self.S = nn.Parameter(torch.empty(s_shape, **factory))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels, **factory)) if bias else None)
        self.reset_parameters()
        quantize_parameters_(self, bits)

    def reset_parameters(self) -> None:
        """Draw new values of S and the bias, with the Glorot variance of a dense convolution. The rule stays."""
        field = self.S[0, 0, 0].numel()
        fan_in, fan_out = field * self.in_channels // self.groups, field * self.out_channels // self.groups
        nn.init.normal_(self.S, std=(2 / (fan_in + fan_out)) ** 0.5)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    @property
    def weight(self) -> Tensor:
        """The dense kernel (out_channels, in_channels / groups, *kernel_size), computed at each access."""
        return self._kernel(*((self.S,) if self.A is None else (self.A, self.S)))

    def _kernel(self, *factors: Tensor) -> Tensor:
        if len(factors) == 1:
            return factors[0][0]
        a, s = factors  # the positions of the kernel are the least significant columns of S
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        return kronecker_sum(a, s.flatten(2)).view(shape)

    def forward(self, input: Tensor) -> Tensor:
        factors = (self.S,) if self.A is None else (self.A, self.S)
        return recomputed(self._run, input, self.bias, *factors)

    def _run(self, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
        x, padding = self._padded(x)
        convolve: Any = F.conv1d if self.over == 1 else F.conv2d
        return convolve(x, self._kernel(*factors), bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return self._shown(f"n={self.n}")


class PHMConv1d(_PHMConv):
    """A 1-dimensional convolution whose kernel is H = sum_i A_i (x) S_i over channels, one S for each position.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            as in `torch.nn.Conv1d`.
        n: divides out_channels and in_channels / groups. n = 1 is a convolution, without an A.
        rule, train_rule, bits: as in `PHMLinear`.

    Attributes:
        A: (n, n, n), None at n = 1.
        S: (n, out_channels / n, in_channels / groups / n, kernel_size).

    Shapes: (N, in_channels, L) or (in_channels, L), as in torch. The kernel is built at each call: contracting would
    not save a multiplication at any size, since every position of the input counts as one more input.

    Raises:
        ValueError: n or groups does not divide the channels; an unknown padding_mode.

    Source: R2D2, section 2.2, applied to every position of the kernel.

    >>> PHMConv1d(8, 12, 3, n=4, padding=1)(torch.randn(2, 8, 10)).shape
    torch.Size([2, 12, 10])
    """

    over = 1


class PHMConv2d(_PHMConv):
    """A 2-dimensional convolution whose kernel is H = sum_i A_i (x) S_i over channels; see `PHMConv1d`.

    Args:
        in_channels, out_channels, kernel_size, n, stride, padding, dilation, groups, bias, padding_mode, rule,
            train_rule, bits, device, dtype: as in `PHMConv1d`; sizes one number or a pair, as in `torch.nn.Conv2d`.

    Attributes:
        A: (n, n, n), None at n = 1.
        S: (n, out_channels / n, in_channels / groups / n, height, width).

    Shapes: (N, in_channels, H, W) or (in_channels, H, W), as in torch.

    Raises:
        ValueError: as `PHMConv1d`.

    Source: R2D2, section 2.2, applied to every position of the kernel.

    >>> PHMConv2d(8, 12, 3, n=4, rule="hamilton")(torch.randn(2, 8, 6, 6)).shape
    torch.Size([2, 12, 4, 4])
    """

    over = 2


def _register_rule(module: nn.Module, rule: Tensor | None) -> None:
    """Register A: as a parameter, or as a buffer if it is fixed."""
    if rule is None or isinstance(rule, nn.Parameter):
        module.register_parameter("A", rule)
    else:
        module.register_buffer("A", rule.detach().clone())
