"""Pruning of tuples, or of their components, by magnitude and on a schedule; for float and LogTensor weights.

A pruned LogTensor weight has a bit of its own, one a tuple, that makes it exactly zero: the ladder has no zero. Madam
leaves masked weights alone. A float weight is set to zero, its gradient there is held at zero, and it is set to zero
again at each `Pruner.step`, since momentum may have moved it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..autograd import dense
from ..log_tensor import LogTensor
from .algebra import Algebra
from .tuples import acting_matrix

CRITERIA = ("frobenius", "det", "min_eigenvalue", "max_eigenvalue", "component")


def tuple_scores(weight: Tensor, algebra: str | Algebra, criterion: str = "frobenius") -> Tensor:
    """What decides which weights go first: those of the smallest score.

    Args:
        weight: (*, A), float or LogTensor.
        algebra: name or Algebra.
        criterion: of tuples, "frobenius" (their L2 norm; the paper's choice), or of the matrix by which they act on a
            column (of the n x n matrix itself for M_n): "det", |determinant|; "min_eigenvalue", "max_eigenvalue", the
            smallest and largest |eigenvalue|. "component": |w| of each component by itself.

    Returns:
        (*) for tuples, (*, A) for components.

    Raises:
        ValueError: an unknown criterion, or a last dimension that is not A.

    Source: AlgebraNets, section 2.3, appendix C.1 and C.2.

    >>> tuple_scores(torch.tensor([[3.0, 0.0, 0.0, 4.0], [1.0, 1.0, 1.0, 1.0]]), "M2R", "det").tolist()
    [12.0, 0.0]
    """
    algebra = Algebra.of(algebra)
    _check_criterion(criterion)
    if weight.dim() == 0 or weight.shape[-1] != algebra.size:
        raise ValueError(f"weight must have {algebra.size} components of {algebra} last, got {tuple(weight.shape)}")
    w = dense(weight.detach())
    w = w if w.dtype == torch.float64 else w.float()
    if criterion == "component":
        return w.abs()
    if criterion == "frobenius":
        return torch.linalg.vector_norm(w, dim=-1)
    matrix = acting_matrix(w, algebra)
    if criterion == "det":
        return torch.linalg.det(matrix).abs()
    eigenvalues = torch.linalg.eigvals(matrix).abs()
    return eigenvalues.amin(-1) if criterion == "min_eigenvalue" else eigenvalues.amax(-1)


@dataclass(frozen=True)
class ZhuGupta:
    """The cubic schedule of sparsity of Zhu and Gupta 2017.

    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3 between t_0 = start * steps and t_1 = end * steps.

    Args:
        sparsity: s_f, the share of weights pruned in the end, in [0, 1).
        steps: training steps in all.
        start, end: t_0 and t_1 as shares of `steps`.
        every: prune at every so many steps in between, and at t_1.
        initial: s_i, the sparsity at the start.

    Raises:
        ValueError: shares out of order or out of bounds, steps or every below 1.

    Source: AlgebraNets, section 4.2 (20 %, 80 %, every 100 steps).

    >>> schedule = ZhuGupta(0.9, steps=1000)
    >>> schedule(0), round(schedule(500), 4), schedule(800), schedule.due(500), schedule.due(501)
    (0.0, 0.7875, 0.9, True, False)
    """

    sparsity: float
    steps: int
    start: float = 0.2
    end: float = 0.8
    every: int = 100
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.sparsity < 1:
            raise ValueError(f"sparsity must lie in [0, 1), not below initial={self.initial}, got {self.sparsity}")
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"start and end must be shares with start < end, got {self.start} and {self.end}")
        if self.steps < 1 or self.every < 1:
            raise ValueError(f"steps and every must be at least 1, got {self.steps} and {self.every}")

    @property
    def _span(self) -> tuple[int, int]:
        first = round(self.start * self.steps)
        return first, max(round(self.end * self.steps), first + 1)

    def __call__(self, step: int) -> float:
        """The sparsity aimed at in a step."""
        first, last = self._span
        done = min(max((step - first) / (last - first), 0.0), 1.0)
        return self.sparsity + (self.initial - self.sparsity) * (1 - done) ** 3 if step >= first else 0.0

    def due(self, step: int) -> bool:
        """Whether to prune in a step."""
        first, last = self._span
        return first <= step <= last and ((step - first) % self.every == 0 or step == last)


class Pruner:
    """Prunes the algebra layers of a model, each to the schedule's sparsity, smallest scores first.

    Call `step` after every step of the optimizer. What is pruned stays pruned.

    Args:
        model: its modules with an `algebra` and a weight of tuples (linear layers, convolutions, recurrent layers) are
            pruned; norms, biases and embeddings never.
        schedule: a `ZhuGupta`, or anything with ``__call__(step)`` and ``due(step)``.
        criterion: as in `tuple_scores`.
        exclude: names of modules (fnmatch patterns) or module classes to leave alone. The paper leaves out the final
            linear layer, the layers that lift inputs to tuples (`TupleLift` is never pruned) and the first convolution.

    Raises:
        ValueError: an unknown criterion, a pattern that matches no module, nothing left to prune.

    Source: AlgebraNets, section 4.2.

    >>> from lognet.nn import AlgebraLinear
    >>> model = nn.Sequential(AlgebraLinear(16, 64, algebra="M2R", bits=8), AlgebraLinear(64, 16, algebra="M2R"))
    >>> pruner = Pruner(model, ZhuGupta(0.75, steps=10, every=1), exclude=["1"])
    >>> for _ in range(10):
    ...     pruner.step()  # after optimizer.step()
    >>> pruner.sparsity()
    {'0.weight': 0.75}
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: ZhuGupta,
        criterion: str = "frobenius",
        exclude: Iterable[str | type[nn.Module]] = (),
    ) -> None:
        self.model, self.schedule, self.criterion = model, schedule, _check_criterion(criterion)
        self.exclude = (exclude,) if isinstance(exclude, (str, type)) else tuple(exclude)
        self.steps = 0
        for pattern in self.exclude:
            if not any(_matches(name, module, pattern) for name, module in model.named_modules()):
                raise ValueError(f"exclude: {pattern!r} matches no module of the model")
        if not list(self._weights()):
            raise ValueError("the model has no weights of tuples to prune; it needs layers of lognet.nn not excluded")
        self._keep: dict[str, Tensor] = {}  # of float weights: True where not pruned
        self._hooked: dict[str, int] = {}  # the float parameter that each hook is on, by its id

    def _weights(self) -> Iterator[tuple[str, Tensor, Algebra]]:
        seen: set[int] = set()
        for path, module in self.model.named_modules():
            algebra = getattr(module, "algebra", None)
            if not isinstance(algebra, Algebra) or any(_matches(path, module, pattern) for pattern in self.exclude):
                continue
            for name, p in module.named_parameters(recurse=False):
                if name.startswith("weight") and p.dim() >= 3 and p.shape[-1] == algebra.size and id(p) not in seen:
                    if hasattr(module, "running_cov"):  # whitening: a matrix for each tuple, not tuples
                        continue
                    seen.add(id(p))
                    yield f"{path}.{name}" if path else name, p, algebra

    def step(self) -> None:
        """Count a step of training; prune if one is due, and hold what is pruned at zero."""
        if self.schedule.due(self.steps):
            self.prune(self.schedule(self.steps))
        self.steps += 1
        self._hold()

    @torch.no_grad()
    def prune(self, sparsity: float) -> None:
        """Prune every weight to `sparsity` now: whole tuples, or components if that is the criterion."""
        if not 0 <= sparsity <= 1:
            raise ValueError(f"sparsity must lie in [0, 1], got {sparsity}")
        for name, weight, algebra in self._weights():
            scores = tuple_scores(weight, algebra, self.criterion)
            kept = self._kept(name, weight, scores)
            scores = scores.masked_fill(~kept, -1.0).flatten()  # the pruned stay so
            count = max(round(sparsity * scores.numel()), int((~kept).sum()))
            keep = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
            keep[scores.argsort(stable=True)[:count]] = False
            keep = keep.view(kept.shape)
            if isinstance(weight, LogTensor):
                weight.set_mask_(keep if self.criterion == "component" else keep.unsqueeze(-1))
            else:
                self._keep[name] = keep
        self._hold()

    def _kept(self, name: str, weight: Tensor, scores: Tensor) -> Tensor:
        keep = self._keep.get(name)
        if isinstance(weight, LogTensor) and weight.mask is not None:
            keep = weight.mask if scores.dim() == weight.dim() else weight.mask.any(-1)
        return torch.ones_like(scores, dtype=torch.bool) if keep is None else keep

    @torch.no_grad()
    def _hold(self) -> None:
        """Float weights: zero what is pruned, and its gradient from now on."""
        for name, weight, _ in self._weights():
            if name not in self._keep or isinstance(weight, LogTensor):
                continue
            weight.mul_(self._spread(name, weight))
            if self._hooked.get(name) != id(weight) and weight.requires_grad:
                weight.register_hook(lambda grad, name=name: grad * self._spread(name, grad))
                self._hooked[name] = id(weight)

    def _spread(self, name: str, like: Tensor) -> Tensor:
        keep = self._keep[name]
        return (keep if keep.dim() == like.dim() else keep.unsqueeze(-1)).to(like)

    def sparsity(self) -> dict[str, float]:
        """The share of numbers that are exactly zero, by parameter."""
        return {name: float((dense(w.detach()) == 0).float().mean()) for name, w, _ in self._weights()}

    def state_dict(self) -> dict[str, Any]:
        """Steps done and the masks of float weights (those of LogTensors are in the model's state dict)."""
        return {"steps": self.steps, "keep": dict(self._keep)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; load the model first."""
        self.steps, self._keep = state["steps"], dict(state["keep"])
        self._hold()


def _check_criterion(criterion: str) -> str:
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(map(repr, CRITERIA))}, got {criterion!r}")
    return criterion


def _matches(name: str, module: nn.Module, pattern: str | type[nn.Module]) -> bool:
    if isinstance(pattern, type):
        return isinstance(module, pattern)
    parts = name.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))
