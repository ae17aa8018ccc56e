"""Madam: the multiplicative optimizer, for LogTensor and float parameters alike."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..quant.kernels import steps
from ..quant.log_format import P_SCALE, in_pieces, typical_magnitude
from ..quant.random_bits import mix64, random16
from ..quant.ratios import next_rung
from ..tensor.log_tensor import LogTensor
from . import launch
from .affine import affine_codes, affine_coefficients, affine_floats
from .checks import check_hyperparameters, check_state_bits, check_state_dict
from .launch import Launcher
from .plan import Pending, Planned, Scalars, are_sound, compute_dtype, fetched, with_tensors
from .release import Release
from .shards import gradient, is_sharded, over_parts, part, part_start, whole
from .state import AVERAGES, add_average, few_bit_direction, full_direction, recode_averages
from .update import CodeStep, step_codes, step_floats

Place = tuple[int, tuple[Tensor, dict[str, Any]]]  # a parameter's index in the optimizer, itself and its group
Places = list[Place]


class Madam(Optimizer):
    r"""Multiplicative adaptive moments, for weights on a ladder in log space.

    .. math::
        \bar g^2 &\leftarrow \beta \bar g^2 + (1-\beta) g^2, \qquad m \leftarrow \mu m + (1-\mu) g \\
        r &\leftarrow \mathrm{clamp}\bigl((\mu \hat m + (1-\mu) g) / \hat g,\; \pm \eta^*/\eta\bigr) \\
        W &\leftarrow \mathrm{clamp}\bigl(W - \eta_\sigma ((1-c)|W| + c\,\sigma)\, r,\; \pm\sigma^*\bigr)

    where hats are bias corrections by :math:`1 - \beta^t` and :math:`1 - \mu^t`, sigma is the typical magnitude of the
    parameter's weights, and :math:`\eta_\sigma = \eta \min(1, 0.2/\sigma)`. The weights of a LogTensor are rounded to
    one of the two rungs around the new value, drawn so that its mean is that value; between the lowest rung and its
    negative, where the ladder has no zero, to one of these two. With ``affine=0`` the update is the paper's:

    .. math::
        W &\leftarrow \mathrm{clamp}(W \exp(-\eta\, \mathrm{sign}(W)\, r),\; \pm\sigma^*)
            && \text{float parameters (Algorithm 1)} \\
        k &\leftarrow \mathrm{clamp}(k + \mathrm{round}(r \eta/\eta_0)\, \mathrm{sign}(W),\; 0,\; 2^B - 1)
            && \text{LogTensor parameters (section 4.1)}

    Float and LogTensor parameters mix freely. No float copy of a LogTensor outlives a step. Its `scale` is sigma* and
    its `base_precision` eta_0. Beyond the `warmup`, learning rates are never scheduled here: use
    `torch.optim.lr_scheduler`.

    Args:
        params: parameters or parameter groups, named or not, as for any torch optimizer.
        lr: eta, the relative change of a typical weight in one step; a float or a 1-element tensor. Ten to a hundred
            times Adam's, which is in units of the weights.
        p_scale: sigma* in units of sigma, for float parameters: these are clamped to ``p_scale * sigma``, where sigma
            is their root mean square before the first update (0.1 for all-zero ones). LogTensors have their scale.
        g_bound: eta*/eta, the largest step in units of lr.
        beta: averaging constant of the second moment.
        momentum: mu, averaging constant of the gradient itself, used in Nesterov's form; 0 keeps no such state.
        affine: c, the share of the step that does not depend on a weight's own size, from 0 (multiplicative, the paper)
            to 1 (additive, in units of sigma).
        warmup: the steps in which lr rises linearly from 0, counted for each parameter; 0 for none.
        sign_crossing: let weights change sign. False freezes the signs, as in the paper: weights stop at the lowest
            rung (floats: at sigma* / 256).
        rounding: to rungs: "stochastic", or "nearest" as in the paper, under which moves below half a rung are lost
            (a warning says so once when lr < eta_0 / 2).
        bias_correction: divide the second moment by 1 - beta^t (and the first by 1 - momentum^t). The paper's text
            prints none.
        state_bits: bits of each of the two averages, for every weight: 32, or 16, 8 and 4 in a log code, with a float32
            scale for each 128 (`lognet.quant.block_format`). A change of ``group["state_bits"]`` recodes them at the
            next step.
        maximize: ascend instead of descend.
        foreach: True moves the float parameters of a group together, laid end to end: fewer operations for models of
            many small tensors, and a temporary copy of them. False and None, the default, move them one by one, as
            LogTensors always are. The result is the same.
        seed: of stochastic rounding. The random bits depend on (seed, step, parameter index, element index) only, so
            replicas and resumed runs agree.
        weight_decay: refused unless 0: Madam regularises by sigma*.

    Raises:
        ValueError: an argument out of bounds, a non-zero `weight_decay`, a tensor `lr` of more than one element.
        TypeError: a parameter that is not floating-point, an argument of the wrong type.

    A parameter whose gradient holds NaN, infinity or a number whose square overflows is left alone for that step, with
    one warning. Entries with zero gradient do not move, unless by their momentum. Under the multiplicative rule a weight
    of exactly zero starts from the lowest rung, on the side where its gradient sends it.

    Differences from the paper: the affine step and rounding without bias in value (the paper's step is multiplicative
    and rounds to whole rungs in log space), momentum, warm-up, sign crossing, bias correction, and the values of lr,
    p_scale, g_bound and beta. `Madam.paper` has none of them but bias correction, which it takes as an option.

    Source: Bernstein et al. 2020, "Learning compositional functions via multiplicative weight updates",
    Algorithm 1 (eta = `lr`, eta* = `lr * g_bound`, sigma* = `p_scale` * sigma, beta = `beta`) and section 4.1. The affine
    step is ours; docs/sweep.md has what it was measured to do.

    >>> w = torch.nn.Parameter(LogTensor.from_float(torch.tensor([1.0, -0.5])))
    >>> optimizer = Madam([w], warmup=0)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     (w * w).sum().backward()
    ...     optimizer.step()
    >>> bool((w.abs() < torch.tensor([1.0, 0.5])).all())
    True
    """

    _warned: frozenset[str] = frozenset()  # kinds of warnings given, each once an optimizer
    _alive: ClassVar[weakref.WeakSet[Madam]] = weakref.WeakSet()  # copies and unpickled ones too

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.2,
        p_scale: float = P_SCALE,
        g_bound: float = 3.0,
        *,
        beta: float = 0.99,
        momentum: float = 0.8,
        affine: float = 0.5,
        warmup: int = 100,
        sign_crossing: bool = True,
        rounding: str = "stochastic",
        bias_correction: bool = True,
        state_bits: int = 32,
        maximize: bool = False,
        foreach: bool | None = None,
        seed: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "p_scale": p_scale,
            "g_bound": g_bound,
            "beta": beta,
            "momentum": momentum,
            "affine": affine,
            "warmup": warmup,
            "sign_crossing": sign_crossing,
            "rounding": rounding,
            "bias_correction": bias_correction,
            "state_bits": state_bits,
            "maximize": maximize,
            "foreach": foreach,
            "seed": seed,
        }
        check_hyperparameters({**defaults, "weight_decay": weight_decay})
        super().__init__(params, defaults)
        self._alive.add(self)

    @classmethod
    def paper(
        cls,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        p_scale: float = 3.0,
        g_bound: float = 8.0,
        beta: float = 0.999,
        **kwargs: Any,
    ) -> Madam:
        """Madam as the paper has it, whatever the defaults of `Madam` become: frozen signs, nearest rounding, no
        momentum. ``bias_correction=False`` gives the printed Algorithm 1 to the letter.

        Args:
            params, p_scale, g_bound, beta: as in `Madam`, with the paper's values for defaults.
            lr: eta, a float or a 1-element tensor.
            kwargs: other arguments of `Madam`, but for those that the paper fixes: affine, warmup, sign_crossing,
                rounding and momentum.

        Raises:
            TypeError: one of those fixed is given.
            ValueError: as `Madam`.

        >>> Madam.paper([torch.nn.Parameter(torch.ones(3))]).defaults["rounding"]
        'nearest'
        """
        fixed: dict[str, Any] = {
            "affine": 0.0,
            "warmup": 0,
            "sign_crossing": False,
            "rounding": "nearest",
            "momentum": 0.0,
        }
        for name in fixed.keys() & kwargs.keys():
            raise TypeError(f"Madam.paper fixes {name}={fixed[name]!r}; use Madam(..., {name}=...) to choose it")
        return cls(params, lr, p_scale, g_bound, beta=beta, **fixed, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch.optim; its hyperparameters are checked before anything changes."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        check_hyperparameters({**self.defaults, **param_group})
        params = param_group["params"]
        if isinstance(params, (set, frozenset)):
            raise TypeError(
                "params must be an ordered collection, got a set: random bits depend on the order; use a list"
            )
        params = [params] if isinstance(params, Tensor) else list(params)
        for p in (p[1] if isinstance(p, tuple) else p for p in params):
            if isinstance(p, Tensor) and not p.is_floating_point():
                raise TypeError(f"Madam moves real floating-point parameters only, got one of {p.dtype}")
            if isinstance(p, Tensor) and is_sharded(p):
                if {**self.defaults, **param_group}["state_bits"] != 32:
                    raise ValueError(
                        f"state_bits must be 32 for sharded parameters, got one of shape {tuple(p.shape)}: blocks of codes"
                        " have no rows to be sharded by. Leave out state_bits, or use DistributedDataParallel"
                    )
            elif isinstance(p, LogTensor) and not p.is_whole:
                raise ValueError(
                    f"Madam moves whole LogTensors only, got a view of shape {tuple(p.shape)} into one; pass the"
                    " LogTensor itself, or a copy of that part (view.clone())"
                )
        super().add_param_group({**param_group, "params": params})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._alive.add(self)
        self.defaults.pop("differentiable", None)  # torch adds it, for optimizers that know the word
        for group in self.param_groups:
            for name, value in self.defaults.items():  # state dicts of versions that knew fewer arguments
                group.setdefault(name, value)
        for values in self.state.values():
            if "step" in values and not isinstance(values["step"], Tensor):
                values["step"] = torch.tensor(float(values["step"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict exactly: torch would cast the state to the parameters' dtype, and lose bits of it.

        Raises:
            ValueError: it is that of another optimizer, of parameters of other shapes, or has a hyperparameter out of
                bounds. Nothing has changed then.
        """
        loaded: dict[str, Any] = {}

        def check(_: Any, final: dict[str, Any]) -> None:
            check_state_dict(final, self.param_groups, self.defaults)
            loaded.update(final)

        def restore(_: Any) -> None:
            indices = [i for group in loaded["param_groups"] for i in group["params"]]
            for p, index in zip(self._parameters(), indices, strict=True):
                for name, value in loaded["state"].get(index, {}).items():
                    if name == "sigma":  # a number that the host needs
                        self.state[p][name] = value.to("cpu", copy=True)
                    elif isinstance(value, Tensor) and name != "step" and self.state[p][name].dtype != value.dtype:
                        self.state[p][name] = value.to(p.device, copy=True)

        hooks = [  # between those of users: these give the final state dict, and get the state as it stays
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    @overload
    def step(self, closure: None = ...) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Perform one step.

        Args:
            closure: re-evaluates the model and returns the loss, which is returned.

        Raises:
            RuntimeError: a sparse gradient; nothing has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._advance(enumerate((p, group) for group in self.param_groups for p in group["params"]))
        return loss

    def step_in_backward(self) -> Release:
        """Make each parameter's step within ``backward()``, as soon as its gradient is there, and free the gradient.

        So gradients never exist all at once, which for few-bit weights would be most of the memory. The steps are those
        of `step`, bit for bit; hyperparameters, schedulers and state dicts stay those of this one optimizer. `step` may
        stay in the loop, where schedulers look for it: it finds no gradient left, and moves parameters that were added
        to the optimizer later.

        What needs all gradients at once, or again, cannot be had: clipping by their common norm, accumulation over
        several backward passes, `GradScaler`, closures, reentrant checkpoints of a part that shares its parameters.

        Returns:
            The hooks: ``.remove()`` takes them away, and so does the end of a ``with`` block.

        >>> w = torch.nn.Parameter(LogTensor.from_float(torch.tensor([1.0, -0.5])))
        >>> with Madam([w], warmup=0).step_in_backward():
        ...     (w * w).sum().backward()
        >>> w.grad is None, bool(w[0] < 1)
        (True, True)
        """
        return Release(self)

    def _advance(self, places: Iterable[Place]) -> None:
        """One step of those parameters, given with their index and group, that have a gradient."""
        moves = self._plan(torch.compiler.is_compiling(), list(places))
        together: dict[Any, list[Planned]] = {}
        for move in moves:
            if move.group["foreach"] and move.group["state_bits"] == 32 and not isinstance(move.p, LogTensor):
                together.setdefault((id(move.group), move.p.dtype, move.p.device), []).append(move)
            else:
                self._move(move.p, move.grad, move.state, move.scalars, move.group)
        for joint in together.values():
            self._move_together(joint)
        if any(move.parameter is not move.p for move in moves):
            self._count(moves)

    def _parameters(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    @torch._disable_dynamo  # type: ignore[attr-defined]  # torch.compiler.disable, which would import the compiler now
    def _plan(self, compiling: bool, places: Places) -> list[Planned]:
        """Which parameters this step moves, and its numbers: all that depends on values and none of the arithmetic.

        So that torch.compile sees arithmetic alone, once and for all steps, in a compiled step every number that may
        change from step to step is a tensor. Parameters that the native kernels can move they have moved on return.
        """
        for group in {id(group): group for _, (_, group) in places}.values():
            check_state_bits(group)
        sharded = any(is_sharded(p) for _, (p, _) in places)
        with nullcontext() if sharded else torch._C.DisableTorchFunctionSubclass():  # LogTensors ask at every attribute
            return self._planned(compiling, places)

    def _planned(self, compiling: bool, places: Places) -> list[Planned]:
        pending, launched = self._described(places)
        rows, params = steps.Rows([row for _, _, row in launched]), [p for p, _, _ in launched]
        sound = are_sound(pending)
        checked = [*zip(sound, ((p, index) for p, _, index, _ in pending), strict=True)]
        if launched:
            checked += zip(rows.check(), ((p, index) for p, index, _ in launched), strict=True)
        for is_sound, (p, index) in checked:
            if not is_sound:
                self._warn_of_gradient(p, index)
        moves = self._moves(
            [row for is_sound, row in zip(sound, pending, strict=True) if is_sound]
        )  # a warning may be an error
        if compiling:
            moves = with_tensors(moves)
        if launched:
            rows.step()
            torch.autograd.graph.increment_version(params)  # so that a stale backward pass raises
        return moves

    def _moves(self, sound: list[Pending]) -> list[Planned]:
        """The steps of parameters whose gradients are sound, which count from here on."""
        moves = []
        scales = iter(fetched([part(p).scale for p, *_ in sound if isinstance(part(p), LogTensor)]))
        for p, grad, index, group in sound:
            state = self._state_of(p, grad, group)
            state["step"] += 1
            scale = next(scales) if isinstance(part(p), LogTensor) else 1.0
            scalars = self._scalars(p, scale, index, int(state["step"]), group)
            if is_sharded(p):
                state = {name: part(value) for name, value in state.items()}
                if "counts" in state:
                    state["counts"] = torch.zeros_like(state["counts"])  # of this part; `_count` adds up
            moves.append(Planned(part(p), part(grad), state, scalars, group, p))
        return moves

    def _described(self, places: Places) -> tuple[list[Pending], list[tuple[Tensor, int, bytearray]]]:
        """The parameters to move: those left to torch, and the rows of those for the native kernels."""
        ready = launch.ready()
        launcher = _LAUNCHERS.setdefault(self, Launcher()) if ready else Launcher()
        groups = {id(group): group for _, (_, group) in places}
        hypers = {key: launcher.hyper(group) for key, group in groups.items()} if ready else {}
        pending, launched, new = [], [], []
        for index, (p, group) in places:
            grad = p.grad
            if grad is None:
                continue
            row = launcher.recall(p, grad, self.state.get(p), hypers[id(group)], index) if ready else None
            if row is not None:
                launched.append((p, index, row))
            else:
                new.append((p, gradient(p), index, group))
        if any(grad.is_sparse for _, grad, _, _ in new):
            raise RuntimeError("Madam does not support sparse gradients; use sparse=False in the Embedding")
        for p, group in [place for _, place in places if place[1]["rounding"] == "nearest"]:
            if p.grad is not None:
                self._warn_of_lost_moves(p, group)
        for p, grad, index, group in new:
            row = None
            if ready and launch.reads(p, grad, group):
                row = launcher.learn(p, grad, self._state_of(p, grad, group), hypers[id(group)], index)
            if row is not None:
                launched.append((p, index, row))
            else:
                pending.append((p, grad, index, group))
        return pending, launched

    def _warn_of_gradient(self, p: Tensor, index: int) -> None:
        self._warn_once(
            "non-finite",
            f"parameter {index} of shape {tuple(p.shape)} has a gradient with NaN, infinity or a square beyond"
            f" {compute_dtype(p)}; its step is skipped (so will be later ones, without a further warning)",
        )

    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _count(self, moves: list[Planned]) -> None:
        """Add to the counts of sharded parameters what their parts counted."""
        counted = [m for m in moves if is_sharded(m.parameter) and "counts" in m.state]
        totals = over_parts([m.state["counts"] for m in counted], [m.parameter for m in counted], "sum")
        for move, total in zip(counted, totals, strict=True):
            self.state[move.parameter]["counts"] += total

    def _warn_of_lost_moves(self, p: Tensor, group: dict[str, Any]) -> None:
        lr, p = float(group["lr"]), part(p)
        if isinstance(p, LogTensor) and 0 < lr < p.base_precision / 2:
            self._warn_once(
                "frozen",
                f"lr={lr:.3g} is below half a rung (base_precision={p.base_precision:.3g}): under nearest rounding most"
                " moves are lost. Use rounding='stochastic', a smaller base_precision, or a schedule that ends above"
                " it (ReduceLROnPlateau(min_lr=base_precision))",
            )

    def _scalars(self, p: Tensor, scale: float, index: int, step: int, group: dict[str, Any]) -> Scalars:
        lr, sigma = float(group["lr"]) * min(1.0, step / max(1, group["warmup"])), float(self.state[p]["sigma"])
        correct = group["bias_correction"]
        own, key = part(p), mix64(group["seed"], step, index)
        unit, rung = 1.0, 1.0
        if isinstance(own, LogTensor):
            unit, rung = scale * next_rung(own.format), own.base_precision
        relative, absolute = affine_coefficients(lr, group["affine"], sigma, unit)
        return Scalars(
            lr=lr / rung,
            relative=relative,
            absolute=absolute,
            correction=1 / (1 - group["beta"] ** step) if correct else 1.0,
            momentum_correction=1 / (1 - group["momentum"] ** step) if correct else 1.0,
            sigma_star=group["p_scale"] * sigma,
            key=key,
            state_key=mix64(group["seed"], step, index, 1),
            start=part_start(p),
        )

    def _move(self, p: Tensor, grad: Tensor, state: dict[str, Any], scalars: Scalars, group: dict[str, Any]) -> None:
        """One parameter's step: arithmetic only."""
        grad = grad.to(compute_dtype(p))
        if group["maximize"]:
            grad = -grad
        if isinstance(p, LogTensor) and p.mask is not None:
            grad = grad * p.mask
        numbers = (group["beta"], group["momentum"], group["g_bound"], scalars.correction, scalars.momentum_correction)
        if group["state_bits"] == 32:
            r = full_direction(state, grad, *numbers)
        else:
            r = few_bit_direction(state, grad, *numbers, group["state_bits"], scalars.state_key)
        if isinstance(p, LogTensor):
            moved = self._move_codes(p, r, scalars, group)
            p.write_codes_(moved.exponent, moved.negative)
            state["counts"] += moved.counts
        elif group["affine"]:
            w, crossing = p.to(grad.dtype), group["sign_crossing"]
            p.copy_(affine_floats(w, r, scalars.relative, scalars.absolute, scalars.sigma_star, crossing))
        else:
            p.copy_(step_floats(p.to(grad.dtype), r, scalars.lr, scalars.sigma_star, group["sign_crossing"]))

    def _move_codes(self, p: LogTensor, r: Tensor, scalars: Scalars, group: dict[str, Any]) -> CodeStep:
        drawn, ladder = None, p._storage.format  # a constant to torch.compile, which p.format is not
        if group["rounding"] == "stochastic":
            drawn = random16(r.numel(), scalars.key, scalars.start, r.device).view(r.shape)
        crossing = group["sign_crossing"]
        if group["affine"]:
            return affine_codes(ladder, *p.codes(), r, scalars.relative, scalars.absolute, crossing, drawn)
        return step_codes(*p.codes(), r, scalars.lr, ladder.last_rung, crossing, drawn)

    def _move_together(self, moves: list[Planned]) -> None:
        """The steps of float parameters of one group, dtype and device, laid end to end."""
        params, grads, states, scalars, groups, _ = zip(*moves, strict=True)
        sizes = [p.numel() for p in params]
        joined = lambda tensors: torch.cat([t.reshape(-1) for t in tensors])
        names = [name for name in AVERAGES if all(name in state for state in states)]
        state = {name: joined([state[name] for state in states]) for name in names}
        flat, grad = joined(params), joined(grads).to(compute_dtype(params[0]))
        self._move(flat, grad, state, Scalars.joined(scalars, sizes, grad), groups[0])
        for targets, source in [(params, flat), *(([s[name] for s in states], state[name]) for name in names)]:
            parts = [part.view(t.shape) for part, t in zip(source.split(sizes), targets, strict=True)]
            torch._foreach_copy_(list(targets), parts)

    def _state_of(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter, made at its first step: nothing depends on its value before that.

        step; exp_avg_sq (g2bar); exp_avg with momentum; sigma; for LogTensors `counts`, the totals of weights with a
        gradient, of those among them that stayed on their rung, and of sign crossings.
        """
        state = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0)
            add_average(state, "exp_avg_sq", grad, compute_dtype(p), group["state_bits"])
        recode_averages(state, grad, compute_dtype(p), group["state_bits"])  # where the group's have been changed
        if isinstance(part(p), LogTensor) and "counts" not in state:  # the state may be that of the float model
            state["counts"] = torch.zeros(3, dtype=torch.int64, device=grad.device)
        if "sigma" not in state:
            state["sigma"] = torch.tensor(_typical_magnitude(whole(p), group["p_scale"]), dtype=torch.float64)
        if group["momentum"] and "exp_avg" not in state:
            add_average(state, "exp_avg", grad, compute_dtype(p), group["state_bits"])
        return state

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned |= {kind}
            warnings.warn(f"Madam: {message}", stacklevel=2)


def is_moved_by_madam(params: Iterable[Tensor]) -> bool:
    """Whether an optimizer that is alive holds one of these parameters."""
    wanted = {id(p) for p in params}
    return any(id(p) in wanted for o in list(Madam._alive) for p in o._parameters())


def _typical_magnitude(p: Tensor, p_scale: float) -> float:
    """`typical_magnitude`, also of LogTensors that were zeros, all on the lowest rung now: they show it by their scale."""
    if isinstance(p, LogTensor) and p.numel() and all(_is_lowest(piece) for piece in in_pieces(p)):
        return float(p.scale) / p_scale
    return typical_magnitude(p)


def _is_lowest(w: Tensor) -> bool:
    return isinstance(w, LogTensor) and bool((w.exponent == w.format.last_rung).all())


_LAUNCHERS: weakref.WeakKeyDictionary[Optimizer, Launcher] = weakref.WeakKeyDictionary()  # copies make their own
