"""Pruning of tuples, or of their components, by magnitude and on a schedule; for float and LogTensor weights.

A pruned LogTensor weight has a bit of its own, one a tuple, that makes it exactly zero: the ladder has no zero. Madam
leaves masked weights alone. A float weight is set to zero, its gradient there is held at zero, and it is set to zero
again at each `Pruner.step`, because momentum may have moved it. Its layer keeps the mask (see `masks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.algebra.algebras import Algebra
from ..nn.algebra.conv import CONVOLUTIONS
from ..nn.algebra.linear import AlgebraLinear
from ..nn.algebra.masks import Prunable, get_mask, set_mask
from ..nn.algebra.tuples import TupleLift, acting_matrix
from ..tensor.floats import dense
from ..tensor.log_tensor import LogTensor
from .patterns import Choice, Patterns, check_module, module_names

CRITERIA = ("frobenius", "det", "min_eigenvalue", "max_eigenvalue", "component")


def tuple_scores(weight: Tensor, algebra: str | Algebra, criterion: str = "frobenius") -> Tensor:
    """The scores of weights; those with the smallest are pruned first.

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

    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3 between t_0 = start * steps and t_1 = end * steps. Before
    t_0 nothing is pruned and s is 0; after t_1 it stays at s_f.

    Args:
        sparsity: s_f, the share of weights pruned in the end, in [0, 1).
        steps: training steps in all.
        start, end: t_0 and t_1 as shares of `steps`.
        every: prune at every so many steps in between, and at t_1.
        initial: s_i, the sparsity to which the first pruning, at t_0, goes at once.

    Raises:
        ValueError: shares out of order or out of bounds, steps or every below 1.

    Source: Zhu and Gupta 2017, equation 1; AlgebraNets, section 4.2 (20 %, 80 %, every 100 steps).

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
        """The sparsity aimed at in a step, counted from 0."""
        first, last = self._span
        done = min(max((step - first) / (last - first), 0.0), 1.0)
        return self.sparsity + (self.initial - self.sparsity) * (1 - done) ** 3 if step >= first else 0.0

    def due(self, step: int) -> bool:
        """Whether to prune in a step."""
        first, last = self._span
        return first <= step <= last and ((step - first) % self.every == 0 or step == last)


class Pruner:
    """Prunes the algebra layers of a model, each to the schedule's sparsity, smallest scores first.

    Call `step` after every step of the optimizer. What is pruned stays pruned, also what another Pruner has pruned: the
    pruned set belongs to the model, and `copy.deepcopy`, state dicts, `lognet.wrap` and `lognet.unwrap` keep it.

    Args:
        model: the weights of its linear layers, convolutions and recurrent layers over algebras are pruned; norms,
            biases and embeddings never.
        schedule: a `ZhuGupta`, or anything with ``__call__(step)`` and ``due(step)``.
        criterion: as in `tuple_scores`.
        include, exclude: patterns as in `lognet.wrap`, which match modules; `exclude` wins. `paper_exclusions` names
            the modules that the paper leaves out.

    Raises:
        ValueError: an unknown criterion, a pattern that matches no module, nothing left to prune.

    Source: AlgebraNets, section 4.2.

    >>> from lognet.nn import AlgebraLinear
    >>> model = nn.Sequential(AlgebraLinear(16, 64, algebra="M2R", bits=8), AlgebraLinear(64, 16, algebra="M2R"))
    >>> pruner = Pruner(model, ZhuGupta(0.75, steps=10, every=1), exclude=paper_exclusions(model))
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
        *,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
    ) -> None:
        check_module(model)
        self.model, self.schedule, self.criterion = model, schedule, _check_criterion(criterion)
        self.steps = 0
        names = module_names(model)
        choice = Choice(model, [name for every in names.values() for name in every], "module", include, exclude)
        self._chosen = {every[0] for every in names.values() if choice.why_not(every) is None}
        if not list(self._weights()):
            raise ValueError(
                "the model has no weights of tuples to prune; include at least one layer over an algebra"
                " (lognet.nn.AlgebraLinear, ...)"
            )
        self._hold()

    def _weights(self, every: bool = False) -> Iterator[tuple[str, Prunable, str]]:
        """The qualified name, module and name in it of each weight that is pruned, or of `every` one."""
        seen: set[int] = set()
        for path, module in self.model.named_modules():
            if not isinstance(module, Prunable) or not (every or path in self._chosen):
                continue
            for name, p in module.named_parameters(recurse=False):
                if name.startswith("weight") and id(p) not in seen:
                    seen.add(id(p))
                    yield f"{path}.{name}" if path else name, module, name

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
        for _, module, name in self._weights():
            weight, before = module.get_parameter(name), get_mask(module, name)
            scores = tuple_scores(weight, module.algebra, self.criterion)
            scores = scores if scores.dim() == weight.dim() else scores.unsqueeze(-1)
            keep = torch.ones_like(scores, dtype=torch.bool)
            if before is not None:  # what is pruned already goes first
                keep = before.expand_as(scores) if scores.shape == weight.shape else before.any(-1, keepdim=True)
            count = max(round(sparsity * scores.numel()), int((~keep).sum()))
            first = scores.masked_fill(~keep, -1.0).flatten().argsort(stable=True)[:count]
            keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device).index_fill(0, first, False)
            keep = keep.view(scores.shape)
            set_mask(module, name, keep if before is None else keep & before)
        self._hold()

    @torch.no_grad()
    def _hold(self) -> None:
        """Zero the pruned values of float weights, also those that another Pruner has pruned, and their gradients."""
        for _, module, name in self._weights(every=True):
            weight = module.get_parameter(name)
            keep = None if isinstance(weight, LogTensor) else get_mask(module, name)
            if keep is None:
                continue
            weight.masked_fill_(~keep, 0)
            hooks = (weight._backward_hooks or {}).values()
            if weight.requires_grad and not any(isinstance(hook, _ZeroGradient) for hook in hooks):
                weight.register_hook(_ZeroGradient(module, name))

    def sparsity(self) -> dict[str, float]:
        """The share of numbers that are exactly zero, by parameter."""
        weights = {path: module.get_parameter(name).detach() for path, module, name in self._weights()}
        return {path: float((dense(w) == 0).float().mean()) for path, w in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """Steps done. What is pruned is in the model's state dict."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. The pruned set is in the model's state dict, which is loaded by itself."""
        self.steps = state["steps"]


class _ZeroGradient:
    """A hook on a float weight: no gradient where it is pruned."""

    def __init__(self, module: Prunable, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, grad: Tensor) -> Tensor:
        keep = get_mask(self.module, self.name)
        return grad if keep is None else grad.masked_fill(~keep, 0)


def paper_exclusions(model: nn.Module) -> list[str]:
    """The names of the modules that the paper does not prune, for the `exclude` of a `Pruner`.

    These are the final linear layer, the first convolution, and what lifts inputs to tuples (`TupleLift`). First and
    last are those in the order of registration, among real layers and layers over an algebra alike: if the first
    convolution is real, all convolutions over the algebra are pruned.

    Args:
        model: any module; a model without linear layers or convolutions just has fewer names.

    Source: AlgebraNets, section 4.2 ("We do not prune terms in the final linear layer, the tuple-initialization
    convolutions, or in the initial convolution").

    >>> from lognet.models import ResNet
    >>> paper_exclusions(ResNet(18, "H", width=0.125))
    ['stem.0', 'stem.1', 'head.0']
    """
    modules = dict(model.named_modules())
    lifts = [name for name, module in modules.items() if isinstance(module, TupleLift)]
    inside = {id(part) for name in lifts for part in modules[name].modules()}
    others = {name: module for name, module in modules.items() if id(module) not in inside}
    convolutions = [name for name, module in others.items() if isinstance(module, CONVOLUTIONS)]
    linear = [name for name, module in others.items() if isinstance(module, (nn.Linear, AlgebraLinear))]
    return [*lifts, *convolutions[:1], *linear[-1:]]


def _check_criterion(criterion: str) -> str:
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(map(repr, CRITERIA))}, got {criterion!r}")
    return criterion
