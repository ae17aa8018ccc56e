"""Patterns, which say which parameters or layers of a model a function concerns, and the arguments of torch's layers.

A pattern is an fnmatch pattern (``"encoder"``, ``"*.bias"``) or a module class. A string matches a parameter or a module
if it matches the qualified name of it or of a module above it; ``"encoder"`` and ``"encoder.*"`` both match
``encoder.layers.0.weight``. A class matches its instances and all that is below them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

Pattern = str | type[nn.Module]
Patterns = Pattern | Iterable[Pattern]


class Matcher:
    """The patterns of one argument, read once and checked.

    Args:
        argument: its name, for errors.
        patterns: one pattern or several.
        model: the module that names are qualified in.
        names: the qualified names that a pattern may match. A pattern that matches none of them is an error.
        kind: what the names stand for, for errors: "parameter", "layer" or "module".

    Raises:
        TypeError: a pattern that is neither a string nor a module class.
        ValueError: a pattern that matches no name.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> Matcher("include", ["1", nn.Linear], model, ["0.weight", "0.bias", "1"], "parameter").first(["0.bias"])
    <class 'torch.nn.modules.linear.Linear'>
    """

    def __init__(self, argument: str, patterns: Patterns, model: nn.Module, names: Sequence[str], kind: str) -> None:
        several = isinstance(patterns, Iterable) and not isinstance(patterns, (str, type))
        self.patterns: tuple[Pattern, ...] = tuple(patterns) if several else (patterns,)  # type: ignore[arg-type,assignment]
        self._modules = dict(model.named_modules(remove_duplicate=False))
        for pattern in self.patterns:
            if not isinstance(pattern, str) and not (isinstance(pattern, type) and issubclass(pattern, nn.Module)):
                raise TypeError(f"{argument} takes fnmatch patterns and torch.nn.Module classes, got {pattern!r}")
            if not any(self._matches(pattern, name) for name in names):
                shown = pattern if isinstance(pattern, str) else pattern.__name__
                some = ", ".join(name or "(the model)" for name in names[:5]) + ", ..." * (len(names) > 5)
                has = f"the model has {some}" if names else f"the model has no {kind} to match"
                raise ValueError(f"{argument}: {shown!r} matches no {kind}; {has}")

    def first(self, names: Iterable[str]) -> Pattern | None:
        """The first pattern that matches one of the names of a parameter or module, or None."""
        names = tuple(names)
        return next((p for p in self.patterns if any(self._matches(p, name) for name in names)), None)

    def _matches(self, pattern: Pattern, name: str) -> bool:
        path = name.split(".")
        above = [".".join(path[:n]) for n in range(1, len(path) + 1)]
        if isinstance(pattern, str):
            return any(fnmatch.fnmatchcase(part, pattern) for part in above)
        return any(isinstance(self._modules.get(part), pattern) for part in ["", *above])


class Choice:
    """The names that `include` (None: all) and `exclude` (None: none) choose; `exclude` wins. See `Matcher`."""

    def __init__(
        self, model: nn.Module, names: Iterable[str], kind: str, include: Patterns | None, exclude: Patterns | None
    ) -> None:
        names = list(names)
        self._include = None if include is None else Matcher("include", include, model, names, kind)
        self._exclude = Matcher("exclude", () if exclude is None else exclude, model, names, kind)

    def why_not(self, names: Sequence[str]) -> str | None:
        """Why what has these names is not chosen, or None if it is. One name is enough to include or exclude it."""
        if self._exclude.first(names) is not None:
            return "excluded"
        return "not included" if self._include is not None and self._include.first(names) is None else None


def module_names(model: nn.Module) -> dict[nn.Module, list[str]]:
    """All qualified names of every module; one that is shared has several."""
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(module, []).append(name)
    return found


def check_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


_RECURRENT = ("input_size", "hidden_size", "num_layers", "batch_first", "dropout", "bidirectional", "proj_size")
ARGUMENTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim", "padding_idx"),
    nn.LSTM: _RECURRENT,
    nn.GRU: _RECURRENT,
    nn.MultiheadAttention: ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first"),
}
"""The arguments of torch's layers that a replacement takes over, its two sizes first; see `biases_of` for the others."""


def biases_of(layer: Any) -> dict[str, bool]:
    """The arguments of a torch layer that say which biases it has."""
    if isinstance(layer, nn.MultiheadAttention):
        return {"bias": layer.in_proj_bias is not None, "add_bias_kv": layer.bias_k is not None}
    if isinstance(layer, nn.Embedding):
        return {}
    return {"bias": layer.bias if isinstance(layer.bias, bool) else layer.bias is not None}
