"""Makes the layers that the models of AlgebraNets share, all over one algebra and of one parameter width."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..nn import Algebra, AlgebraBatchNorm2d, AlgebraConv2d, AlgebraLinear, AlgebraWhitening, TupleNorm
from ..nn.algebra.algebras import tuples_in

NORMS = ("batch", "whitening")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU}


class Parts:
    """Makes the layers of a model, all over one algebra, with the norm and the activation that the model is given."""

    def __init__(
        self,
        algebra: str | Algebra,
        bits: int | None,
        norm: str = "batch",
        activation: str = "relu",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
        self.algebra = Algebra.of(algebra)
        self.like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.options: dict[str, Any] = {"algebra": self.algebra, "bits": bits, **self.like}
        self._norm, self._activation = norm, activation

    def width(self, channels: float) -> int:
        """The multiple of A nearest to a number of real channels."""
        size = self.algebra.size
        return max(size, round(channels / size) * size)

    def chosen(self, name: str, asked: int | None, default: float) -> int:
        """The width that the user chose, checked, or the multiple of A nearest to the paper's width."""
        if asked is None:
            return self.width(default)
        tuples_in(asked, self.algebra, name)
        return asked

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
        """A convolution without bias. It is padded so that only its stride changes the size of the image."""
        options: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": False}
        return AlgebraConv2d(inputs, outputs, kernel, **options, **self.options)

    def norm(self, channels: int) -> nn.Module:
        """Batch norm of each component, or whitening of each tuple."""
        make: Any = AlgebraBatchNorm2d if self._norm == "batch" else AlgebraWhitening
        return make(channels, **self.options)

    def activation(self) -> nn.Module:
        """The nonlinearity, component by component."""
        return ACTIVATIONS[self._activation]()

    def logits(self, features: int, classes: int) -> nn.Module:
        """Real logits: a linear layer gives a tuple for each class, then its L2 norm is taken, except over R."""
        layer = AlgebraLinear(features, classes * self.algebra.size, **self.options)
        return layer if self.algebra.size == 1 else nn.Sequential(layer, TupleNorm(algebra=self.algebra))
