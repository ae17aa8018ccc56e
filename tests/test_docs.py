"""The documentation: its Python runs, its commands parse, its links and its lines hold, and the reference is complete.

Pages are README.md, CONTRIBUTING.md, examples/paper/README.md and every Markdown file below docs/:

- ```` ```python ```` blocks of a page run in order, as one program, in an empty folder;
- ```` ```python standalone ```` blocks run as files of their own, by an interpreter of their own;
- a block of either kind whose first line is ``# not run by the tests: REASON`` is compiled only, and counted below;
- ```` ```sh ```` blocks, indented commands and commands in backticks are parsed: make's targets and variables, modules
  and their flags and choices, files, extras;
- prose is wrapped at `WIDTH`.
"""

import ast
import importlib.util
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
import types
import unicodedata
import warnings
import zlib
from pathlib import Path

import pytest
from public import public_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/paper/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NOT_RUN: dict[str, int] = {}  # page -> snippets that need a GPU, a download or a long time, and say so
LANGUAGES = {"python", "python standalone", "sh", "text", "json", "c", "cpp"}
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
SKIP = re.compile(r"# not run by the tests: \S")
TOOLS = {"git", "cd", "export"}
MAKEFILE = (ROOT / "Makefile").read_text()


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def snippets(text: str, language: str) -> list[str]:
    """The blocks of a language, each after as many empty lines as it has lines above it, so that errors give the page's lines."""
    found = [m for m in FENCE.finditer(text) if m[2] == language]
    return ["\n" * text.count("\n", 0, m.start(3)) + m[3] for m in found]


def is_run(snippet: str) -> bool:
    return not SKIP.match(snippet.lstrip("\n"))


def together(blocks: list[str]) -> str:
    """One program of several blocks, each at its own line numbers."""
    program = ""
    for block in blocks:
        program += block[program.count("\n") :]
    return program


# Python


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_runs(page, tmp_path, monkeypatch):
    text = page.read_text()
    monkeypatch.chdir(tmp_path)
    source = together([block for block in snippets(text, "python") if is_run(block)])
    code = compile(source, str(page), "exec")
    script = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)  # where pickle looks for the page's definitions
    exec(code, vars(script))
    for number, block in enumerate(filter(is_run, snippets(text, "python standalone"))):
        file = tmp_path / f"standalone_{number}.py"
        file.write_text(block)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, file], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{page}: {done.stderr}"


def test_what_is_not_run_is_marked_and_counted():
    found = {}
    for page in PAGES:
        blocks = [b for language in ("python", "python standalone") for b in snippets(page.read_text(), language)]
        skipped = [block for block in blocks if not is_run(block)]
        for block in skipped:
            ast.parse(block, str(page))
        if skipped:
            found[name_of(page)] = len(skipped)
    assert found == NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page):
    text = page.read_text()
    kinds = {match[2] for match in FENCE.finditer(text)}
    assert {kind for kind in kinds if not kind.startswith("{api} ")} <= LANGUAGES
    assert len(re.findall(r"^`{3,}", text, re.MULTILINE)) == 2 * len(FENCE.findall(text)), "a fence is not closed"


# Commands


def commands(text: str) -> list[list[str]]:
    """The words of every command of a page, without environment variables and comments."""
    lines = [line for block in snippets(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    prose = FENCE.sub("", text)
    known = r"(?:make|python3?|lognet|pip|torchrun)"
    lines += re.findall(rf"^    ({known} .+)", prose.replace("\\\n", " "), re.MULTILINE)
    lines += re.findall(rf"`({known} [^`\n]+)`", prose)
    found = []
    for line in lines:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word not in ("&&", "||", "|", ";", "&"):
                words.append(word)
                continue
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                found.append(words)
            words = []
    return found


def main_of(module: str) -> Path | None:
    """The file that ``python -m module`` runs."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    return Path(spec.origin) if spec and spec.origin else None


def ask_for_help(main: Path | str, words: list[str], capsys) -> str:
    """The help that a file or module prints for these words and ``--help``. It parses the words and does nothing else."""
    folder = [str(main.parent)] if isinstance(main, Path) else []
    before, path, argv = dict(sys.modules), sys.path, sys.argv
    sys.path, sys.argv = folder + path, [str(main), *words, "--help"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # another test may have imported it
            run = runpy.run_path if isinstance(main, Path) else runpy.run_module
            run(str(main), run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.path, sys.argv = path, argv
        for name in sys.modules.keys() - before.keys():  # other scripts may import modules of the same names
            if folder and (getattr(sys.modules[name], "__file__", None) or "").startswith(folder[0]):
                del sys.modules[name]
    out, err = capsys.readouterr()
    assert code == 0, f"{main} {shlex.join(words)}: {err or out}"
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    unknown = sorted(flag for flag in flags if not re.search(rf"{re.escape(flag)}\b(?!-)", out))
    assert not unknown, f"{main} has no {', '.join(unknown)}"
    return out


def check_module(module: str, words: list[str], capsys) -> str:
    try:
        main = main_of(module)
    except ModuleNotFoundError:
        main = None
    assert main is not None, f"there is no module {module} to run"
    asks = main.is_relative_to(ROOT) and (words or main.name == "__main__.py")  # a plain file may have no flags
    return ask_for_help(module, words, capsys) if asks else ""


def check(words: list[str], capsys) -> str:
    """Fail unless the command could run here. Returns the help of a module of lognet."""
    tool, *rest = words
    if tool in ("python", "python3"):
        if rest[:1] == ["-m"]:
            module, *rest = rest[1:]
            if module == "pip":
                return check(["pip", *rest], capsys)
            return check_module(module, rest, capsys)
        if rest[:1] != ["-c"]:
            assert (ROOT / rest[0]).is_file(), f"there is no file {rest[0]}"
            return ask_for_help(ROOT / rest[0], rest[1:], capsys) if rest[1:] else ""
    elif tool == "lognet":
        return check_module("lognet", rest, capsys)
    elif tool == "torchrun":
        start = next(i for i, word in enumerate(rest) if word.endswith(".py") or word == "-m")
        return check(["python", *rest[start:]], capsys)
    elif tool == "make":
        targets = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)[1].split()
        for word in rest:
            name, is_variable, value = word.partition("=")
            if not is_variable:
                assert name in targets, f"make has no target {name}"
                continue
            assert re.search(rf"^{name} \?=", MAKEFILE, re.MULTILINE), f"make has no variable {name}"
            recipe = re.search(rf"-m ([\w.]+) \$\({name}\)", MAKEFILE)
            if recipe:
                check_module(recipe[1], shlex.split(value), capsys)
    elif tool == "pip":
        extras = re.search(
            r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL
        )
        known = set(re.findall(r"^(\w+) = ", extras[1], re.MULTILINE))
        for asked in re.findall(r"(?:^|[ ])(?:\.|lognet)\[([\w,]+)\]", " ".join(rest)):
            assert set(asked.split(",")) <= known, f"there is no extra {asked}"
    else:
        assert tool in TOOLS, f"unknown command {tool}: teach tests/test_docs.py to check it"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page, capsys):
    text, helps = page.read_text(), ""
    for words in commands(text):
        helps += check(words, capsys)
    for flag in re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE):  # the tables of flags
        assert re.search(rf"{flag}\b(?!-)", helps), f"no command on this page has {flag}"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("make nothing", "no target nothing"),
        ("make sweep NOTHING=1", "no variable NOTHING"),
        ('make sweep SWEEP_ARGS="--nothing"', "no --nothing"),
        ("python -m lognet.nothing", "no module lognet.nothing"),
        ("python -m lognet.sweep --steps none", "not a whole number"),
        ("OMP_NUM_THREADS=1 python -m benchmarks.quality --quick --nothing", "no --nothing"),
        ("python examples/nothing.py", "no file examples/nothing.py"),
        ("torchrun --nproc-per-node 2 examples/nothing.py --lr 1", "no file examples/nothing.py"),
        ('pip install "lognet[nothing]"', "no extra nothing"),
        ("cd here && wrong-tool", "unknown command wrong-tool"),
        ("python -m benchmarks.quality --quick  # a comment", None),
    ],
)
def test_checker_of_commands(command, complaint, capsys):
    def run() -> None:
        for words in commands(f"```sh\n{command}\n```\n"):
            check(words, capsys)

    if complaint is None:
        run()
    else:
        with pytest.raises(AssertionError, match=complaint):
            run()


# Links


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as a code-hosting site makes them."""
    headings = re.findall(r"^#{1,6} (.+)", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link}: leads out of the repository"
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


# Characters and lines

WIDTH = 120
GENERATED = {"docs/quality-tables.md"}  # tables and the warnings of training, as the command wrote them
SOURCES = {".c", ".cff", ".cpp", ".h", ".in", ".md", ".py", ".svg", ".toml", ".txt"}
FOLDERS = ("benchmarks", "docs", "examples", "lognet", "optim", "quant", "requirements", "tests")


def too_long(text: str) -> list[str]:
    """The lines of prose beyond `WIDTH`. Tables, blocks of code, and a single long word are not wrapped."""
    prose = FENCE.sub("", text).splitlines()
    return [s for s in prose if len(s) > WIDTH and " " in s.strip() and not s.startswith(("|", "    "))]


def hidden(text: str) -> set[str]:
    """Characters that no editor shows: format characters, and control characters except line breaks and tabs."""
    return {hex(ord(c)) for c in set(text) - set("\n\t") if unicodedata.category(c) in ("Cc", "Cf")}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_prose_is_wrapped(page):
    if name_of(page) not in GENERATED:
        assert not too_long(page.read_text())


def test_sources_have_no_hidden_characters():
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix in SOURCES or path.name in ("LICENSE", "Makefile")]
    assert {ROOT / "README.md", ROOT / "quant/log_format.py"} <= set(files)
    found = {name_of(path): hidden(path.read_bytes().decode()) for path in files}
    assert not {name: characters for name, characters in found.items() if characters}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("word " * 24, 0),
        ("word " * 25, 1),
        ("- " + "word " * 25 + "\n  " + "word " * 25, 2),
        ("| " + "word " * 30 + "|", 0),
        ("```text\n" + "word " * 30 + "\n```\n", 0),
        ("a" * 130, 0),
    ],
)
def test_checker_of_lines(text, count):
    assert len(too_long(text)) == count


def test_checker_of_characters():
    assert hidden("plain é ± text\n\tindented\n") == set()
    assert hidden("a\x00b\x08c\rd\u200be\ufeff") == {"0x0", "0x8", "0xd", "0x200b", "0xfeff"}


# The reference


def test_every_public_name_is_in_the_reference():
    listed: set[str] = set()
    for page in (ROOT / "docs/reference").glob("*.md"):
        for _, kind, body in FENCE.findall(page.read_text()):
            names = [f"{kind.removeprefix('{api} ')}.{name}" for name in body.split()]
            assert not listed & set(names), "a name is listed twice"
            listed |= set(names)
    public = {name: value for name, value in public_names().items() if not inspect.ismodule(value)}
    unpublished = sorted(listed - set(public))
    assert not unpublished, f"in docs/reference and not published: {', '.join(unpublished)}"
    there = [public[name] for name in listed]
    missing = [name for name, value in public.items() if not any(value is other for other in there)]
    assert not missing, f"published and not in docs/reference: {', '.join(missing)}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="needs pip install lognet[docs]")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", ROOT / "docs"]
    command += ["-d", tmp_path / "trees", ROOT, tmp_path / "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packed = (tmp_path / "site/objects.inv").read_bytes().split(b"\n", 4)[4]
    found = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines() if " py:" in line}
    by_object = {id(value): name for name, value in public_names().items() if name in found}
    public = {name: value for name, value in public_names().items() if not inspect.ismodule(value)}
    assert not [name for name, value in public.items() if id(value) not in by_object]
