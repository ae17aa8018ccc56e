"""Every public name says what it takes, gives and refuses, and shows it: the docstrings, read against the code.

A public name is one that a public package lists in ``__all__``; of a module among them, what it defines. A docstring

- names in ``Args`` every parameter, in ``Attributes`` or ``Args`` what a data class holds;
- has ``Raises`` if the code raises TypeError or ValueError, or calls a ``check_...`` that does;
- has an example (``>>>``), or a line ``No example: ...`` with the reason;
- gives a shape if an argument, or the input of a module, is a tensor.

Class methods that make an object are held to the same, all other public methods to having a docstring.
"""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from public import public_names

NAMES = {name: obj for name, obj in public_names().items() if inspect.isclass(obj) or inspect.isfunction(obj)}
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Shapes?|Source|Example|Note):(.*)$", re.MULTILINE)
SIZE = r"(?:\*?[\w.]+(?: ?[-+*/^] ?[\w.]+)*|\*|\.\.\.)"  # n, *, 3 * hidden_size, in_channels / A
SHAPE = re.compile(rf"[Ss]hape|\({SIZE},(?: {SIZE},?)*\)|\(\*\)|1-element|any size")


def sections(doc: str) -> dict[str, str]:
    """Heading -> text, of a docstring as `inspect.cleandoc` gives it; a section ends where the indentation does."""
    found = {}
    for match in SECTION.finditer(doc):
        body = doc[match.end() :].lstrip("\n").splitlines()
        end = next((i for i, line in enumerate(body) if line and not line.startswith(" ")), len(body))
        found[match[1].rstrip("s") if match[1] == "Shapes" else match[1]] = match[2] + "\n" + "\n".join(body[:end])
    return found


def entries(section: str) -> set[str]:
    """The names that a section's entries are about: ``    name, other: ...``; a long list goes on in the next line."""
    names: set[str] = set()
    for entry in re.findall(r"^    ((?:\*{0,2}\w+(?:, *\n? *|(?=:)))+):", section + "\n", re.MULTILINE):
        names.update(re.findall(r"\w+", entry))
    return names


def parameters(obj: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(obj).parameters
    except ValueError:  # an extension type's own
        return {}
    return {name: p for name, p in found.items() if name not in ("self", "cls")}


def own_code(obj: Any) -> Iterator[ast.AST]:
    """The body of a function; of a class, what makes one, in all its bases of ours."""
    if inspect.isclass(obj):
        makers = ("__new__", "__init__", "__post_init__")
        functions = [vars(base)[m] for base in obj.__mro__ if ours(base) for m in makers if m in vars(base)]
    else:
        functions = [obj]
    for function in functions:
        if isinstance(function, types.FunctionType) and function.__code__.co_filename != "<string>":
            source = inspect.getsource(inspect.unwrap(function))
            yield from ast.walk(ast.parse(textwrap.dedent(source)))


def ours(obj: Any) -> bool:
    return (getattr(obj, "__module__", "") or "").split(".")[0] == "lognet"


def called(node: ast.AST) -> str:
    f = node.func if isinstance(node, ast.Call) else None
    return f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""


def refuses(obj: Any) -> bool:
    for node in own_code(obj):
        if isinstance(node, ast.Raise) and node.exc and called(node.exc) in ("TypeError", "ValueError", "SweepError"):
            return True
        if called(node).startswith(("check_", "_check_")):
            return True
    return False


def takes_tensors(obj: Any) -> bool:
    functions = [obj]
    if inspect.isclass(obj):
        functions += [f for f in (getattr(obj, "forward", None),) if ours(f)]
    return any("Tensor" in str(p.annotation) for f in functions for p in parameters(f).values())


def problems_of(obj: Any, doc: str | None) -> list[str]:
    """What the docstring of a public class or function lacks."""
    if not doc:
        return ["has no docstring"]
    doc = inspect.cleandoc(doc)
    text = sections(doc)
    problems = []
    described = entries(text.get("Args", "")) | (entries(text.get("Attributes", "")) if inspect.isclass(obj) else set())
    undescribed = [name for name in parameters(obj) if name not in described]
    if undescribed:
        problems.append(f"Args does not name {', '.join(undescribed)}")
    unknown = sorted(entries(text.get("Args", "")) - set(parameters(obj)))
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters(obj).values()):
        problems.append(f"Args names {', '.join(unknown)}, which it does not take")
    if refuses(obj) and "Raises" not in text:
        problems.append("raises errors and has no Raises")
    if ">>>" not in doc and "No example: " not in doc:
        problems.append("has neither an example nor a line 'No example: ...' with the reason")
    if takes_tensors(obj) and not SHAPE.search(doc.partition(">>>")[0]):
        problems.append("takes tensors and gives no shape")
    return problems


def methods(cls: type) -> dict[str, Any]:
    """The public methods and properties that a class of ours, or a base of it, adds to what torch documents."""
    found = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items() if ours(base) else ():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if isinstance(function, types.FunctionType) and not name.startswith("_"):
                found[name] = value
    return found


OF_TORCH = {"forward", "extra_repr", "backward", "setup_context"}  # documented there, or by the class


def test_there_are_names():
    assert {"lognet.wrap", "lognet.nn.PHMLinear", "lognet.convert.prune.Pruner", "lognet.optim.theory.angle"} <= set(
        NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_complete(name):
    obj = NAMES[name]
    problems = problems_of(obj, vars(obj).get("__doc__") if inspect.isclass(obj) else obj.__doc__)
    for method, value in methods(obj).items() if inspect.isclass(obj) else ():
        function = getattr(obj, method)
        if isinstance(value, classmethod):
            problems += [f"{method}: {problem}" for problem in problems_of(function, function.__doc__)]
        elif method not in OF_TORCH and not inspect.getdoc(function):
            problems.append(f"{method}: has no docstring")
    assert not problems, f"{name}: " + "; ".join(problems)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Double.", "Args does not name x, factor"),
        ("Double.\n\nArgs:\n    x: (n,).", "Args does not name factor"),
        ("Double.\n\nArgs:\n    x, factor, third: (n,).", "Args names third"),
        ("Double.\n\nArgs:\n    x, factor: (n,).\n\n>>> 1", "no Raises"),
        ("Double.\n\nArgs:\n    x, factor: (n,).\n\nRaises:\n    ValueError: never.", "neither an example"),
        ("Double.\n\nArgs:\n    x: a tensor.\n    factor: 2.", "no shape"),
        (None, "no docstring"),
        ("Double.\n\nArgs:\n    x,\n        factor: (n,).\n\nRaises:\n    ValueError: it is 0.\n\n>>> 1", None),
    ],
)
def test_checker_sees_what_is_missing(text, complaint):
    def double(x: torch.Tensor, factor: int) -> torch.Tensor:
        if factor == 0:
            raise ValueError("factor must not be 0")
        return x * factor

    problems = problems_of(double, text)
    assert any(complaint in problem for problem in problems) if complaint else problems == []
