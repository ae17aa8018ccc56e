"""The table of PyTorch's own suite for an optimizer, filled in for Madam, and problems to run it on.

It does not repeat the defaults of Madam, so that they can change.
"""

import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

# Its import forbids the whole process to set cudnn's flags. Undo that.
_flags, _name = torch.backends.flags_frozen.__globals__, "__allow_nonbracketed_mutation_flag"
_allowed = _flags[_name]
from torch.testing._internal.common_optimizers import (  # noqa: E402
    ErrorOptimizerInput,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)
from torch.testing._internal.common_optimizers import OptimizerErrorEnum as OptimizerErrorEnum  # noqa: E402

_flags[_name] = _allowed

from lognet import LogTensor  # noqa: E402
from lognet.optim import Madam  # noqa: E402


def inputs(device, dtype=None):
    return [
        OptimizerInput(params=None, kwargs={}, desc="default"),
        OptimizerInput(params=None, kwargs={"lr": 0.05}, desc="another lr"),
        OptimizerInput(params=None, kwargs={"lr": torch.tensor(0.05)}, desc="tensor lr"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "momentum": 0.9}, desc="momentum"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "beta": 0.9, "bias_correction": False}, desc="as printed"),
        OptimizerInput(params=None, kwargs={"lr": 0.5, "sign_crossing": False, "rounding": "nearest"}, desc="frozen"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "affine": 0.0, "momentum": 0.0}, desc="multiplicative"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "state_bits": 8}, desc="few bits"),
        OptimizerInput(params=None, kwargs={"lr": 0.05, "maximize": True, "g_bound": 2.0}, desc="maximize"),
    ]


def error_inputs(device, dtype):
    w = nn.Parameter(torch.randn(2, device=device, dtype=dtype))
    bad = [
        ({"lr": -1.0}, ValueError, "lr must be at least 0"),
        ({"p_scale": 0.0}, ValueError, "p_scale must be positive"),
        ({"beta": 1.0}, ValueError, "beta must be in"),
        ({"weight_decay": 0.1}, ValueError, "no weight_decay"),
    ]
    own = [
        ErrorOptimizerInput(OptimizerInput(params=[w], kwargs=k), error_type=error, error_regex=words)
        for k, error, words in bad
    ]
    return get_error_inputs_for_all_optims(device, dtype) + own


INFO = OptimizerInfo(
    Madam,
    optim_inputs_func=inputs,
    optim_error_inputs_func=error_inputs,
    scheduler_inputs=(
        [lambda opt: schedulers.StepLR(opt, gamma=0.9, step_size=10)],
        [lambda opt: schedulers.ReduceLROnPlateau(opt)],
        [
            lambda opt: schedulers.LinearLR(opt, start_factor=0.4, total_iters=4),
            lambda opt: schedulers.ExponentialLR(opt, gamma=0.99),
        ],
    ),
    supported_impls=("foreach",),
    not_og_supported_flags=("foreach",),
    supports_complex=False,
)
INPUTS = {given.desc: given.kwargs for given in INFO.optim_inputs_func("cpu")}
KINDS = ["float32", "bfloat16", "float64", "log", "log bfloat16", "mixed"]


def is_accepted(**kwargs):
    try:
        return bool(Madam([nn.Parameter(torch.ones(1))], **kwargs))
    except ValueError:
        return False


STATE_BITS = [bits for bits in range(1, 65) if is_accepted(state_bits=bits)]


class Problem:
    """Weight, bias and a loss that both signs of a step can change."""

    def __init__(self, kind="float32", seed=0, order=("weight", "bias")):
        generator = torch.Generator().manual_seed(seed)
        dtype = getattr(torch, kind.removeprefix("log ") if kind.startswith(("log ", "float", "bfloat")) else "float32")
        randn = lambda *shape: torch.randn(shape, generator=generator).to(dtype)
        wrapped = {"log": ("weight", "bias"), "log bfloat16": ("weight", "bias"), "mixed": ("weight",)}.get(kind, ())
        self.tensors = {
            name: nn.Parameter(LogTensor.from_float(x, scale=8.0) if name in wrapped else x)
            for name, x in (("weight", randn(10, 5)), ("bias", randn(10)))
        }
        self.params = [self.tensors[name] for name in order]
        self.x = randn(5)

    def loss(self):
        return (self.tensors["weight"] @ self.x + self.tensors["bias"]).square().sum()

    def closure(self, optimizer):
        def call():
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        return call

    def values(self):
        return [p.detach().clone() for p in self.params]


def assert_equal(xs, ys):
    for x, y in zip(xs, ys, strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def same(a, b):
    """Whether state dicts are equal exactly, with dtypes, in any order of their keys."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def run(optimizer, problem, steps, schedulers=()):
    for _ in range(steps):
        loss = optimizer.step(problem.closure(optimizer))
        for scheduler in schedulers:
            scheduler.step(loss.detach()) if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else (
                scheduler.step()
            )
    return loss
