"""How `make docs` turns README.md, these pages and the docstrings into a site: Sphinx, with MyST for the Markdown.

The pages are plain Markdown with relative links, so that a code-hosting site shows them too. This file adds the
navigation, and links from every public name in backticks to its reference. A name below `lognet.` that does not exist
gives a warning, and warnings are errors. The source folder is the repository itself: sphinx -c docs . build/docs
"""

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lognet  # noqa: E402

project, author, release = "lognet", "The lognet authors", lognet.__version__
copyright = author  # the line at the foot of a page
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = f"lognet {release}"
html_copy_source = False
root_doc = "README"
include_patterns = ["*.md", "docs/**", "examples/paper/README.md"]
exclude_patterns = [
    ".*",
    *(path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("docs", "examples")),
]

myst_heading_anchors = 4  # anchors of headings as on a code-hosting site
myst_links_external_new_tab = False

default_role = "code"  # `name` in a docstring, as in Markdown
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch documents its own methods
autodoc_default_options = {"members": True, "inherited-members": "Module,Optimizer,Tensor,TensorBase,object"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Shape", "Shapes", "Source"]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

PACKAGES = (
    *("lognet.convert", "lognet.measure", "lognet.saving"),  # lognet has their most used names too
    *("lognet", "lognet.models", "lognet.nn", "lognet.optim", "lognet.quant", "lognet.sweep"),
)
GUIDES = ("index", "glossary", "sweep", "algebra", "kronecker", "files", "pytorch")
MEASURED = ("quality", "benchmarks", "kernels-measured")
PROJECT = ("CHANGELOG", "CONTRIBUTING", "docs/structure")
NAVIGATION = """

```{toctree}
:hidden:
:caption: %s
:glob:
%s
```
"""

log = logging.getLogger(__name__)


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """The first page lists all others. A page that is in none of the lists above counts as a guide."""
    if page != root_doc:
        return
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {Path(page).stem for page in PROJECT}
    measured = sorted(page for page in pages if page.startswith(MEASURED))
    guides = [page for page in GUIDES if page in pages] + sorted(pages - {*GUIDES, *measured})
    for caption, names in (
        ("Guides", [*(f"docs/{page}" for page in guides), "examples/paper/README"]),
        ("Measured", [f"docs/{page}" for page in measured]),
        ("Reference", ["docs/reference/lognet", "docs/reference/*"]),
        ("Project", PROJECT),
    ):
        source[0] += NAVIGATION % (caption, "\n".join(names))


def add_front_door(app: Sphinx, exception: Exception | None) -> None:
    """Browsers and servers open index.html."""
    if exception is None and app.builder.name == "html":
        Path(app.outdir, "index.html").write_text('<meta http-equiv="refresh" content="0; url=README.html">\n')


class Api(SphinxDirective):
    """```{api} MODULE`` and names, one a line, become a table with first sentences, and then the full entries."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        names = [line.strip() for line in self.content if line.strip()]
        lines = [f".. currentmodule:: {module}", "", ".. autosummary::", "", *(f"   {name}" for name in names), ""]
        for name in names:
            value = getattr(importlib.import_module(module), name)
            kind = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "data"
            kind = "exception" if inspect.isclass(value) and issubclass(value, Exception) else kind
            lines += [f".. auto{kind}:: {name}", ""]
        return self.parse_text_to_nodes("\n".join(["````{eval-rst}", *lines, "````"]))


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Link every public name in backticks to its reference, and warn of names that do not exist."""
    public = public_names()
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().split("(")[0]
        if isinstance(literal.parent, (nodes.reference, addnodes.pending_xref)) or not name.isascii():
            continue
        if name in public:
            link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=public[name], refwarn=True)
            link["refdoc"] = app.env.docname
            literal.replace_self(link)
            link += literal
        elif name.startswith("lognet.") and all(part.isidentifier() for part in name.split(".")) and not exists(name):
            log.warning("%s does not exist", name, location=literal, type="lognet", subtype="name")


def public_names() -> dict[str, str]:
    """Map a name as written, in full or alone, to its name in the reference, which has each object once."""
    published = [
        (f"{package}.{name}", name, getattr(importlib.import_module(package), name))
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
    ]
    published = [(full, name, value) for full, name, value in published if not inspect.ismodule(value)]
    home = {
        id(value): full for full, _, value in published
    }  # an object is listed under the last package that publishes it
    names = {name: home[id(value)] for _, name, value in published}
    return names | {full: home[id(value)] for full, _, value in published}


NO_PYTHON = {"lognet.sha256"}  # an entry in the files of lognet.save


def exists(name: str) -> bool:
    value: Any = lognet
    for part in name.split(".")[1:]:
        try:
            value = getattr(value, part)
        except AttributeError:
            return name in NO_PYTHON
    return True


def escape(app: Sphinx, kind: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape (*, features), |w| and fit_ in docstrings, because reStructuredText would read them as markup."""
    for i in reversed(range(len(lines) - 1)):  # napoleon needs the names of an entry in one line
        if re.fullmatch(r" {4,}\w+(, \w+)*,", lines[i]):
            lines[i : i + 2] = [f"{lines[i]} {lines[i + 1].strip()}"]
    literal, indent = False, 0  # in an example or a formula
    for i, line in enumerate(lines):
        if line.strip():
            depth = len(line) - len(line.lstrip())
            if literal and (depth <= indent and indent >= 0):
                literal = False
            if line.lstrip().startswith(">>> "):
                literal, indent = True, -1
            elif line.lstrip().startswith(".. "):
                literal, indent = True, depth
        elif indent < 0:
            literal, indent = False, 0
        if not literal:
            parts = re.split(r"(:\w+:`[^`]+`|``.+?``|`[^`]+`)", line)
            parts[::2] = [re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app: Sphinx) -> None:
    app.add_directive("api", Api)
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
    app.connect("doctree-read", link_names)
    app.connect("build-finished", add_front_door)
