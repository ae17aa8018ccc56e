"""One vocabulary: every function that takes patterns understands the same ones, and refuses the same ones."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import nn

import lognet
from lognet import Kronecker, LogTensor
from lognet.convert.patterns import Choice, Matcher
from lognet.convert.prune import Pruner, ZhuGupta
from lognet.convert.quantizers import quantizers_of
from lognet.nn import AlgebraLinear

LINEAR = ("first", "body.0.inner", "body.1", "last")


class Block(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.inner = make()


def network(make):
    """Four layers, two of them below a module and one of these below another."""
    body = nn.Sequential(Block(make), make())
    return nn.ModuleDict({"first": make(), "body": body, "last": make()})


def wrapped(model):
    return {name.rpartition(".")[0] for name, p in model.named_parameters() if isinstance(p, LogTensor)}


def widths(model):
    return {name.rpartition(".")[0] for name, p in model.named_parameters() if getattr(p, "bits", 8) != 8}


def is_a(kind):
    return lambda model: {name for name, module in model.named_modules() if isinstance(module, kind)}


def pruned(model):
    return {name.removesuffix(".weight_keep") for name, _ in model.named_buffers()}


def real():
    return nn.Linear(8, 8)


def over_quaternions():
    return AlgebraLinear(8, 8, algebra="H")


def listed(given):
    return list(given) if isinstance(given, Iterable) and not isinstance(given, (str, type)) else [given]


def as_spec(model, include=None, exclude=()):
    """`compress`, told by the keys of its spec."""
    rules = dict.fromkeys(listed(exclude), None) | {"*": Kronecker(1)}
    if include is not None:
        rules = dict.fromkeys(listed(include), Kronecker(1))
    lognet.compress(model, rules, min_parameters=0)


def as_widths(model, include=None, exclude=()):
    """`wrap`, told by the keys of `bits_for`."""
    bits_for = dict.fromkeys(listed(exclude), 8) | {"*": 5}
    if include is not None:
        bits_for = dict.fromkeys(listed(include), 5)
    lognet.wrap(model, bits=8, bits_for=bits_for)


# name: the model, the function, what it did to which layers, and how it calls these and the argument
FUNCTIONS = {
    "wrap": (lambda: network(real), lognet.wrap, wrapped, "parameter", None),
    "bits_for": (lambda: network(real), as_widths, widths, "parameter", "bits_for"),
    "requantize": (
        lambda: lognet.wrap(network(real)),
        lambda model, **patterns: lognet.requantize(model, 5, **patterns),
        widths,
        "parameter",
        None,
    ),
    "set_quantizers": (
        lambda: lognet.wrap(network(real)),
        lambda model, **patterns: lognet.set_quantizers(model, 8, **patterns),
        lambda model: set(quantizers_of(model)),
        "layer",
        None,
    ),
    "compress": (
        lambda: network(real),
        lambda model, **patterns: lognet.compress(model, Kronecker(1), min_parameters=0, **patterns),
        is_a(lognet.nn.KroneckerLinear),
        "layer",
        None,
    ),
    "spec": (lambda: network(real), as_spec, is_a(lognet.nn.KroneckerLinear), "layer", "spec"),
    "algebraize": (
        lambda: network(real),
        lambda model, **patterns: lognet.algebraize(model, "H", **patterns),
        is_a(AlgebraLinear),
        "module",
        None,
    ),
    "Pruner": (
        lambda: network(over_quaternions),
        lambda model, **patterns: Pruner(model, ZhuGupta(0.5, steps=10), **patterns).prune(0.5),
        pruned,
        "module",
        None,
    ),
}
PATTERNS = {
    "a name": ("last", {"last"}),
    "a module above": ("body", {"body.0.inner", "body.1"}),
    "a glob of the name": ("body.*.inner", {"body.0.inner"}),
    "a glob of a module above": ("bod?", {"body.0.inner", "body.1"}),
    "a class above": (Block, {"body.0.inner"}),
    "a class": (nn.Module, set(LINEAR)),
    "several": (["first", Block], {"first", "body.0.inner"}),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("how", ["include", "exclude"])
@pytest.mark.parametrize("generator", [False, True])
def test_patterns_mean_the_same_everywhere(function, pattern, how, generator):
    make, call, done, _, _ = FUNCTIONS[function]
    given, matched = PATTERNS[pattern]
    if how == "exclude" and matched == set(LINEAR):
        matched = {"first"}  # a Pruner refuses to have nothing to prune
        given = "first"
    if generator:
        given = (p for p in (given if isinstance(given, list) else [given]))
    model = make()
    call(model, **{how: given})
    assert done(model) == (matched if how == "include" else set(LINEAR) - matched)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("how", ["include", "exclude"])
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("nothing*", ValueError, "{argument}: 'nothing\\*' matches no {kind}; the model has "),
        (["first", nn.Conv3d], ValueError, "{argument}: 'Conv3d' matches no {kind}; the model has "),
        ("irst", ValueError, "{argument}: 'irst' matches no {kind}"),
        (3, TypeError, "{argument} takes fnmatch patterns and torch.nn.Module classes, got 3"),
        (["first", None], TypeError, "{argument} takes fnmatch patterns and torch.nn.Module classes, got None"),
        (torch.Tensor, TypeError, "{argument} takes fnmatch patterns and torch.nn.Module classes, got <class"),
    ],
)
def test_the_same_errors_everywhere_and_nothing_changes(function, how, given, error, words):
    make, call, done, kind, argument = FUNCTIONS[function]
    model = make()
    before = copy.deepcopy(model)
    with pytest.raises(error, match=words.format(argument=argument or how, kind=kind)):
        call(model, **{how: given})
    assert done(model) == done(before)
    assert repr(model) == repr(before)


@pytest.mark.parametrize("function", [name for name, (*_, argument) in FUNCTIONS.items() if argument is None])
def test_exclude_wins(function):
    make, call, done, _, _ = FUNCTIONS[function]
    model = make()
    call(model, include=["body", "last"], exclude=Block)
    assert done(model) == {"body.1", "last"}


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "bits_for"])
def test_a_shared_module_is_known_by_all_of_its_names(function):
    make, call, done, _, _ = FUNCTIONS[function]
    model = make()
    model["alias"] = model["first"]
    call(model, exclude="alias")
    assert done(model) - {"alias"} == set(LINEAR) - {"first"}


def test_the_first_pattern_that_matches():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    matcher = Matcher("x", {"1": 0, nn.Linear: 1}, model, ["0", "1"], "layer")
    assert [matcher.first([name]) for name in ("0", "1")] == [nn.Linear, "1"]
    assert matcher.first(["0", "1"]) == "1"
    assert matcher.first([]) is None


def test_why_not():
    choice = Choice(nn.Sequential(nn.ReLU(), nn.ReLU()), ["0", "1"], "layer", "0", "1")
    assert [choice.why_not(names) for names in (["0"], ["1"], ["0", "1"])] == [None, "excluded", "excluded"]
    assert Choice(nn.ReLU(), [""], "layer", nn.ReLU, None).why_not([""]) is None
    with pytest.raises(ValueError, match="include: 'x' matches no layer; the model has no layer to match"):
        Choice(nn.ReLU(), [], "layer", "x", None)
