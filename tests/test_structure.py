"""The import rule of docs/structure.md: a file imports only from floors below its own, or from its own row."""

import ast
import graphlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = {"lognet": "lognet", "optim": "lognet.optim", "quant": "lognet.quant"}  # folder -> the package it installs as
CLIENTS = ("examples", "benchmarks")
PUBLIC_PACKAGES = {
    "lognet",
    *(f"lognet.{name}" for name in ["convert", "measure", "models", "nn", "optim", "quant", "saving", "sweep"]),
}


class Row(NamedTuple):
    floor: int
    paths: tuple[str, ...]


class Import(NamedTuple):
    target: str  # dotted name, absolute
    line: int
    level: int  # 0: written as an absolute import
    at_import_time: bool


def read_rows(markdown: str) -> list[Row]:
    rows = [re.match(r"\| (\d+) \| ([^|]+) \|", line) for line in markdown.splitlines()]
    return [Row(int(m[1]), tuple(re.findall(r"`([^`]+)`", m[2]))) for m in rows if m]


def find_modules(root: Path) -> dict[str, str]:
    """Dotted name -> path relative to the root, of every file of the library; links are not followed."""
    modules = {}
    for folder, package in LIBRARY.items():
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root / folder)
            if any((root / folder / parent).is_symlink() for parent in inside.parents):
                continue
            parts = [package, *inside.with_suffix("").parts]
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.relative_to(root).as_posix()
    return modules


def find_row(path: str, rows: list[Row]) -> Row | None:
    """The row whose path is the longest that `path` begins with."""
    found = [(len(p), row) for row in rows for p in row.paths if path == p or (p.endswith("/") and path.startswith(p))]
    return max(found)[1] if found else None


def gathers(path: str, target: str) -> bool:
    """Whether `path` is the __init__.py of a folder below a package, and `target` a file in that folder."""
    folder = path.removesuffix("__init__.py")
    return folder != path and folder.count("/") > 1 and target.startswith(folder)


def _walk(node: ast.AST, at_import_time: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, at_import_time
        deferred = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        deferred |= isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield from _walk(child, at_import_time and not deferred)


def find_imports(source: str, module: str, is_package: bool, modules: set[str]) -> Iterator[Import]:
    """Every import of a library module: statements anywhere in the file, and import_module("a.constant")."""

    def absolute(name: str, level: int) -> str:
        if not level:
            return name
        here = module.split(".")
        base = here[: len(here) - level + is_package]
        return ".".join([*base, name] if name else base)

    for node, now in _walk(ast.parse(source)):
        targets: list[tuple[str, int]] = []
        if isinstance(node, ast.Import):
            targets = [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level)
            full = [f"{base}.{alias.name}" for alias in node.names]
            targets = [(name if name in modules else base, node.level) for name in full]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str):
                dots = len(name) - len(name.lstrip("."))
                targets = [(absolute(name.lstrip("."), dots), dots)]
        for target, level in targets:
            if target.split(".")[0] in LIBRARY:
                yield Import(target, getattr(node, "lineno", 0), level, now)


def check_library(root: Path, rows: list[Row]) -> list[str]:
    modules = find_modules(root)
    problems = [f"{path}: no row in docs/structure.md" for path in modules.values() if find_row(path, rows) is None]
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        row = find_row(path, rows)
        if row is None:
            continue
        for found in find_imports((root / path).read_text(), module, path.endswith("/__init__.py"), set(modules)):
            where = f"{path}:{found.line}"
            if found.level == 0:
                problems.append(f"{where}: imports {found.target} by its absolute name; write a relative import")
            if found.target not in modules:
                problems.append(f"{where}: imports {found.target}, which is not in the tree")
                continue
            if found.at_import_time and found.target != module:
                graph.setdefault(module, set()).add(found.target)
            below = find_row(modules[found.target], rows)
            upwards = below is not None and below != row and below.floor >= row.floor
            if upwards and not gathers(path, modules[found.target]):
                problems.append(f"{where}: floor {row.floor} imports {found.target} on floor {below.floor}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        problems.append("files import each other in a circle: " + " <- ".join(error.args[1]))
    return problems


def check_native(root: Path, rows: list[Row]) -> list[str]:
    """The C++ files: every include in quotes is found as the compiler finds it, beside the file or from the `csrc` of quant/,
    and is on a floor below or in the same row."""
    files = [path for folder in LIBRARY for path in sorted((root / folder).rglob("*")) if path.suffix in (".cpp", ".h")]
    searched = sorted((root / "quant").rglob("csrc"))  # setup.py's -I
    problems = []
    for path in files:
        name = path.relative_to(root).as_posix()
        row = find_row(name, rows)
        for i, line in enumerate(path.read_text().splitlines(), 1):
            include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if include is None:
                continue
            where = f"{name}:{i}"
            candidates = [(folder / include[1]).resolve() for folder in (path.parent, *searched)]
            found = next((file for file in candidates if file.exists()), None)
            target = None if found is None else found.relative_to(root.resolve()).as_posix()
            below = None if target is None else find_row(target, rows)
            if below is None or row is None:
                problems.append(f"{where}: includes {include[1]}, which is not in the tree")
            elif below != row and below.floor >= row.floor:
                problems.append(f"{where}: floor {row.floor} includes {target} on floor {below.floor}")
    return problems


def check_client(source: str, path: str, published: dict[str, set[str]]) -> list[str]:
    """A file of examples/ or benchmarks/: public packages, published names, no private attributes."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            used = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            used = [(node.module or "", alias.name) for alias in node.names]
        else:
            used = []
        for package, name in used:
            if package.split(".")[0] not in LIBRARY:
                continue
            if package not in published:
                problems.append(f"{path}:{node.lineno}: imports {package}, which is not one of the public packages")
            elif name is not None and name not in published[package] and f"{package}.{name}" not in published:
                problems.append(f"{path}:{node.lineno}: {name} is not published by {package}")
        private = isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr)
        if private and getattr(node.value, "id", "") not in ("self", "cls"):
            problems.append(f"{path}:{node.lineno}: uses the private name {node.attr}")
    return problems


ROWS = read_rows((ROOT / "docs/structure.md").read_text())


def test_table_is_read():
    assert len(ROWS) >= 5
    missing = [path for row in ROWS for path in row.paths if not (ROOT / path).exists()]
    assert not missing, f"rows of docs/structure.md without a file: {missing}"


def test_imports_run_downwards():
    assert len(find_modules(ROOT)) >= 4
    problems = check_library(ROOT, ROWS)
    assert not problems, "\n" + "\n".join(problems)


def test_includes_run_downwards():
    problems = check_native(ROOT, ROWS)
    assert not problems, "\n" + "\n".join(problems)


def test_clients_use_public_names_only():
    files = [path for folder in CLIENTS for path in sorted((ROOT / folder).rglob("*.py"))]
    published = {}
    if files:
        here = PUBLIC_PACKAGES & set(find_modules(ROOT))
        published = {name: set(getattr(importlib.import_module(name), "__all__", ())) for name in here}
    problems = []
    for path in files:
        problems += check_client(path.read_text(), path.relative_to(ROOT).as_posix(), published)
    assert not problems, "\n" + "\n".join(problems)


# The checker itself: each bad tree differs from a good one by one file.

TABLE = """
| floor | folder | what is there |
|---|---|---|
| 0 | `quant/` | |
| 1 | `lognet/tensor/` | |
| 2 | `lognet/nn/` | |
| 2 | `optim/` | |
| 3 | `lognet/nn/algebra/` | |
| 3 | `lognet/nn/kronecker/` | |
| 4 | `lognet/convert/` | |
| 5 | `lognet/__init__.py` | |
| 6 | `lognet/sweep/`, `lognet/__main__.py` | |
"""

GOOD = {
    "quant/__init__.py": "from .ladder import encode",
    "quant/ladder.py": "import torch",
    "quant/csrc/ladder.h": "#pragma once\n#include <math.h>",
    "quant/csrc/decode.cpp": '#include "ladder.h"',
    "lognet/__init__.py": "from .tensor import LogTensor\nfrom .convert import wrap\nfrom . import optim",
    "lognet/tensor/__init__.py": "from .log_tensor import LogTensor",
    "lognet/tensor/log_tensor.py": "from ..quant import encode\ndef f():\n    from .functional import g",
    "lognet/tensor/functional.py": "from .log_tensor import LogTensor",
    "lognet/nn/__init__.py": "from .algebra.linear import Linear",
    "lognet/nn/checks.py": "import torch",
    "lognet/nn/algebra/__init__.py": "",
    "lognet/nn/algebra/linear.py": "from ...tensor.log_tensor import LogTensor\nfrom ..checks import check",
    "lognet/nn/kronecker/__init__.py": "",
    "lognet/nn/kronecker/phm.py": "from ..checks import check",
    "optim/__init__.py": "from .madam import Madam",
    "optim/madam.py": "from ..tensor.log_tensor import LogTensor",
    "quant/csrc/simd/avx2.h": '#include "ladder.h"',
    "optim/csrc/step.h": "#pragma once",
    "optim/csrc/step.cpp": '#include "simd/avx2.h"\n#include "step.h"',
    "lognet/convert/__init__.py": "from .wrap import wrap",
    "lognet/convert/wrap.py": "from ..nn import Linear\nfrom ..optim import Madam",
    "lognet/sweep/__init__.py": "from .. import wrap\nfrom ..optim import Madam",
    "lognet/__main__.py": "from .sweep import main",
}


@pytest.fixture
def tree(tmp_path):
    for path, text in GOOD.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    for name in ("optim", "quant"):
        (tmp_path / "lognet" / name).symlink_to(f"../{name}")
    return tmp_path


def test_checker_accepts_a_good_tree(tree):
    assert len(find_modules(tree)) == sum(path.endswith(".py") for path in GOOD)
    assert check_library(tree, read_rows(TABLE)) == []
    assert check_native(tree, read_rows(TABLE)) == []


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("quant/ladder.py", "from ..tensor.log_tensor import X", "floor 0 imports lognet.tensor.log_tensor on floor 1"),
        ("quant/ladder.py", "from ..convert import wrap", "floor 0 imports lognet.convert.wrap on floor 4"),
        ("quant/ladder.py", "from .. import LogTensor", "floor 0 imports lognet on floor 5"),
        ("lognet/tensor/log_tensor.py", "def h():\n    from ..nn.checks import x", "floor 1 imports lognet.nn.checks"),
        ("lognet/tensor/functional.py", "from ..optim import Madam", "floor 1 imports lognet.optim on floor 2"),
        ("lognet/tensor/__init__.py", "from ..nn.checks import x", "floor 1 imports lognet.nn.checks on floor 2"),
        ("optim/madam.py", "from ..nn import Linear", "floor 2 imports lognet.nn on floor 2"),
        (
            "lognet/nn/checks.py",
            "from .algebra.linear import Linear",
            "floor 2 imports lognet.nn.algebra.linear on floor 3",
        ),
        (
            "lognet/nn/algebra/linear.py",
            "from ..kronecker.phm import P",
            "floor 3 imports lognet.nn.kronecker.phm on floor 3",
        ),
        (
            "lognet/nn/algebra/linear.py",
            "from ...convert.wrap import w",
            "floor 3 imports lognet.convert.wrap on floor 4",
        ),
        ("optim/madam.py", "from lognet.tensor import LogTensor", "by its absolute name"),
        ("optim/madam.py", "import quant", "by its absolute name"),
        ("optim/madam.py", "from ..missing import x", "lognet.missing, which is not in the tree"),
        (
            "lognet/convert/wrap.py",
            "import importlib\nimportlib.import_module('..sweep')",
            "floor 4 imports lognet.sweep",
        ),
        ("lognet/convert/wrap.py", "if TYPE_CHECKING:\n    from ..sweep import main", "floor 4 imports lognet.sweep"),
        ("lognet/tensor/log_tensor.py", "from .functional import g", "in a circle"),
        ("lognet/new.py", "import torch", "lognet/new.py: no row"),
        (
            "quant/csrc/ladder.h",
            '#include "../../optim/csrc/step.cpp"',
            "floor 0 includes optim/csrc/step.cpp on floor 2",
        ),
        ("quant/csrc/decode.cpp", '#include "step.h"', "includes step.h, which is not in the tree"),
        ("quant/csrc/decode.cpp", '#include "avx2.h"', "includes avx2.h, which is not in the tree"),
        ("optim/csrc/step.cpp", '#include "none.h"', "includes none.h, which is not in the tree"),
    ],
)
def test_checker_sees_a_bad_import(tree, path, line, complaint):
    with (tree / path).open("a") as file:
        file.write(line + "\n")
    problems = check_library(tree, read_rows(TABLE)) + check_native(tree, read_rows(TABLE))
    assert any(complaint in problem for problem in problems), problems
    assert all(problem.startswith((path, "files import")) for problem in problems), problems


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import torch, lognet\nfrom lognet.optim import Madam\nlognet.wrap(self._x)", None),
        ("from lognet import optim", None),
        ("from lognet.optim.madam import Madam", "not one of the public packages"),
        ("import optim", "not one of the public packages"),
        ("from lognet import _secret", "_secret is not published"),
        ("from lognet.optim import Other", "Other is not published"),
        ("weight._codes", "private name _codes"),
    ],
)
def test_checker_of_clients(source, complaint):
    problems = check_client(source, "examples/x.py", {"lognet": {"wrap"}, "lognet.optim": {"Madam"}})
    assert complaint in problems[0] if complaint else problems == []
