"""Madam: the multiplicative optimizer for LogTensor and float parameters."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import compress
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..quant.log_format import P_SCALE
from ..tensor.log_tensor import LogTensor
from .checks import check_hyperparameters, check_state_bits, check_state_dict, refuse_sparse
from .engines import Engine, Engines
from .parameter_step import ParameterStep
from .release import Release
from .shards import any_sharded, is_sharded, local
from .state import compute_dtype


class Madam(Optimizer):
    r"""Multiplicative adaptive moments, for weights on a ladder in log space.

    .. math::
        \bar g^2 &\leftarrow \beta \bar g^2 + (1-\beta) g^2, \qquad m \leftarrow \mu m + (1-\mu) g \\
        r &\leftarrow \mathrm{clamp}\bigl((\mu \hat m + (1-\mu) g) / \hat g,\; \pm \eta^*/\eta\bigr) \\
        W &\leftarrow \mathrm{clamp}\bigl(W - \eta_\sigma ((1-c)|W| + c\,\sigma)\, r,\; \pm\sigma^*\bigr)

    Hats are bias corrections by :math:`1 - \beta^t` and :math:`1 - \mu^t`. Sigma is the typical magnitude of the
    parameter's weights, and :math:`\eta_\sigma = \eta \min(1, 0.2/\sigma)`. A weight of a LogTensor is rounded to
    one of the two rungs around its new value, drawn so that the mean is that value. Because the ladder has no zero, values
    between the lowest rung and its negative are rounded to one of these two. With ``affine=0`` the update is the paper's:

    .. math::
        W &\leftarrow \mathrm{clamp}(W \exp(-\eta\, \mathrm{sign}(W)\, r),\; \pm\sigma^*)
            && \text{float parameters (Algorithm 1)} \\
        k &\leftarrow \mathrm{clamp}(k + \mathrm{round}(r \eta/\eta_0)\, \mathrm{sign}(W),\; 0,\; 2^B - 1)
            && \text{LogTensor parameters (section 4.1)}

    Float and LogTensor parameters may be mixed. No float copy of a LogTensor outlives a step. The `scale` of a LogTensor is
    sigma*, and its `base_precision` is eta_0. Apart from the `warmup`, Madam does not schedule learning rates: use
    `torch.optim.lr_scheduler`.

    Args:
        params: parameters or parameter groups, named or not, as for any torch optimizer.
        lr: eta, the relative change of a typical weight in one step; a float or a 1-element tensor. It is ten to a hundred
            times Adam's, because Adam's is in units of the weights.
        p_scale: sigma* in units of sigma, for float parameters. They are clamped to ``p_scale * sigma``, where sigma
            is the root mean square before the first update (0.1 for all-zero ones). For LogTensors sigma* is the scale.
        g_bound: eta*/eta, the largest step in units of lr.
        beta: averaging constant of the second moment.
        momentum: mu, averaging constant of the gradient, in Nesterov's form. With 0 there is no such state.
        affine: c, the share of the step that does not depend on the weight's magnitude, from 0 (multiplicative, the paper)
            to 1 (additive, in units of sigma).
        warmup: the number of steps in which lr rises linearly from 0, counted for each parameter. 0 for none.
        sign_crossing: let weights change sign. False freezes the signs, as in the paper: weights stop at the lowest
            rung (floats: at sigma* / 256).
        rounding: how weights are rounded to rungs: "stochastic", or "nearest" as in the paper. With "nearest", moves below
            half a rung are lost; if lr < eta_0 / 2, a warning says so once.
        bias_correction: divide the second moment by 1 - beta^t and the first by 1 - momentum^t. The paper has no such
            correction.
        state_bits: bits of each of the two averages, for every weight: 32, or 16, 8 or 4 in a log code with a float32
            scale for each 128 (`lognet.quant.block_format`). If ``group["state_bits"]`` changes, the next step recodes
            the averages.
        maximize: ascend instead of descend.
        foreach: True moves the float parameters of a group together, in one temporary copy: fewer operations for models
            of many small tensors, but more memory. False and None move them one by one, as LogTensors always are. The
            result is the same.
        seed: of stochastic rounding. The random bits depend only on (seed, step, parameter index, element index), so
            replicas and resumed runs agree.
        weight_decay: must be 0, because Madam regularises by sigma*.

    Raises:
        ValueError: an argument out of bounds, a non-zero `weight_decay`, a tensor `lr` of more than one element.
        TypeError: a parameter that is not floating-point, an argument of the wrong type.

    If a gradient holds NaN, infinity or a number whose square overflows, its parameter skips that step, and Madam warns once.
    Entries with zero gradient move only by their momentum. Under the multiplicative rule a weight of exactly zero starts from
    the lowest rung, with the sign opposite to its gradient's.

    Differences from the paper: the affine step, rounding without bias in value (the paper's step is multiplicative
    and rounds to whole rungs in log space), momentum, warm-up, sign crossing, bias correction, and the values of lr,
    p_scale, g_bound and beta. `Madam.paper` has only bias correction of these, as an option.

    Source: Bernstein et al. 2020, "Learning compositional functions via multiplicative weight updates",
    Algorithm 1 (eta = `lr`, eta* = `lr * g_bound`, sigma* = `p_scale` * sigma, beta = `beta`) and section 4.1. The affine
    step is not in the paper; docs/sweep.md has measurements of it.

    >>> w = torch.nn.Parameter(LogTensor.from_float(torch.tensor([1.0, -0.5])))
    >>> optimizer = Madam([w], warmup=0)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     (w * w).sum().backward()
    ...     optimizer.step()
    >>> bool((w.abs() < torch.tensor([1.0, 0.5])).all())
    True
    """

    _warned: frozenset[str] = frozenset()  # the kinds of warnings that this optimizer has given
    _alive: ClassVar[weakref.WeakSet[Madam]] = weakref.WeakSet()  # also copies and unpickled optimizers

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
        self._engines = Engines()
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
        """The paper's Madam, which does not depend on the defaults of `Madam`: frozen signs, nearest rounding, no
        momentum. ``bias_correction=False`` gives Algorithm 1 exactly as printed.

        Args:
            params, p_scale, g_bound, beta: as in `Madam`, with the paper's values for defaults.
            lr: eta, a float or a 1-element tensor.
            kwargs: other arguments of `Madam`, except those that the paper fixes: affine, warmup, sign_crossing,
                rounding and momentum.

        Raises:
            TypeError: an argument that the paper fixes is given.
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
        """Add a group, as in torch.optim. Its hyperparameters and parameters are checked before anything changes."""
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
        self._engines = Engines()  # not shared with the original
        self._alive.add(self)
        self.defaults.pop("differentiable", None)  # torch adds it to every optimizer
        for group in self.param_groups:
            for name, value in self.defaults.items():  # state dicts of older versions lack some
                group.setdefault(name, value)
        for values in self.state.values():
            if "step" in values and not isinstance(values["step"], Tensor):
                values["step"] = torch.tensor(float(values["step"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict exactly. torch would cast the state to the parameters' dtype, which loses bits.

        Raises:
            ValueError: the state dict is that of another optimizer, its parameters have other shapes, or a
                hyperparameter is out of bounds. Then nothing has changed.
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

        hooks = [  # run after the user's pre-hooks and before the user's post-hooks
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
            RuntimeError: a gradient is sparse. Then nothing has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        of_groups = ((p, group) for group in self.param_groups for p in group["params"])
        self._advance((index, p, group) for index, (p, group) in enumerate(of_groups))
        return loss

    def step_in_backward(self) -> Release:
        """Make each parameter's step within ``backward()``, as soon as its gradient is complete, and free the gradient.

        The gradients never exist all at once. With few-bit weights they would take most of the memory. The steps equal those
        of `step` bit for bit. Hyperparameters, schedulers and state dicts are those of this optimizer. `step` may stay in the
        loop, because schedulers expect it: it moves only parameters that were added to the optimizer later.

        It does not work with methods that need all gradients at once or twice: clipping by their common norm, accumulation
        over several backward passes, `GradScaler`, closures, reentrant checkpoints of a part that shares its parameters.

        Returns:
            The hooks. ``.remove()`` or the end of a ``with`` block removes them.

        >>> w = torch.nn.Parameter(LogTensor.from_float(torch.tensor([1.0, -0.5])))
        >>> with Madam([w], warmup=0).step_in_backward():
        ...     (w * w).sum().backward()
        >>> w.grad is None, bool(w[0] < 1)
        (True, True)
        """
        return Release(self, self._advance)

    def _advance(self, parameters: Iterable[tuple[int, Tensor, dict[str, Any]]]) -> None:
        """One step of these parameters, each given with its index and its group. Those without a gradient do not move."""
        for engine, steps in self._plan(parameters):
            engine.step(steps)

    @torch._disable_dynamo  # type: ignore[attr-defined]  # torch.compiler.disable, which would import the compiler now
    def _plan(
        self, parameters: Iterable[tuple[int, Tensor, dict[str, Any]]]
    ) -> list[tuple[Engine, list[ParameterStep]]]:
        """The steps of the parameters with a sound gradient, and the engine for each.

        Raises all errors and warnings before any weight moves. torch.compile does not trace it, because it branches on values.
        """
        numbered = list(parameters)
        groups = list({id(group): group for _, _, group in numbered}.values())
        for group in groups:
            check_state_bits(group)
        sharded = any_sharded(p for _, p, _ in numbered)
        with (
            nullcontext() if sharded else torch._C.DisableTorchFunctionSubclass()
        ):  # makes attributes of LogTensors faster
            steps = [
                ParameterStep(p, index, group, p, grad) for index, p, group in numbered if (grad := p.grad) is not None
            ]
            refuse_sparse(step.grad for step in steps)
            self._warn_of_lost_moves(steps, groups)
            for step in steps:
                step.state = self.state[step.parameter]
            assigned = self._engines.assign(steps, groups)
            checked = [(engine, own, engine.check(own)) for engine, own in assigned]
        unsound = [step for _, own, sound in checked for step, is_sound in zip(own, sound, strict=True) if not is_sound]
        for step in unsound:
            if not step.state:  # no sound step so far
                del self.state[step.parameter]
        if unsound:
            first = min(unsound, key=lambda step: step.index)
            self._warn_once(
                "non-finite",
                f"parameter {first.index} of shape {tuple(first.parameter.shape)} has a gradient with NaN, infinity or a"
                f" square beyond {compute_dtype(first.parameter)}; its step is skipped. Later steps with such a"
                " gradient are skipped without a warning",
            )
        return [(engine, list(compress(own, sound))) for engine, own, sound in checked if any(sound)]

    def _parameters(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def _warn_of_lost_moves(self, steps: list[ParameterStep], groups: list[dict[str, Any]]) -> None:
        nearest = {id(group): float(group["lr"]) for group in groups if group["rounding"] == "nearest"}
        for step in steps if nearest else ():
            lr, p = nearest.get(id(step.group), 0.0), local(step.parameter)
            if isinstance(p, LogTensor) and 0 < lr < p.base_precision / 2:
                self._warn_once(
                    "frozen",
                    f"lr={lr:.3g} is below half a rung (base_precision={p.base_precision:.3g}): under nearest rounding most"
                    " moves are lost. Use rounding='stochastic', a smaller base_precision, or a schedule that ends above"
                    " it (ReduceLROnPlateau(min_lr=base_precision))",
                )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned |= {kind}
            warnings.warn(f"Madam: {message}", stacklevel=2)


def is_moved_by_madam(params: Iterable[Tensor]) -> bool:
    """Whether a live Madam holds one of these parameters."""
    wanted = {id(p) for p in params}
    return any(id(p) in wanted for o in list(Madam._alive) for p in o._parameters())
