"""The report: one file, nothing from outside, every number of the table in it."""

import re
from html.parser import HTMLParser

import pytest

from lognet.sweep.figures import Figures, colours
from lognet.sweep.plan import contenders
from lognet.sweep.report import render
from lognet.sweep.results import Store
from lognet.sweep.summary import summarise
from lognet.sweep.tables import cells


@pytest.fixture(scope="module")
def page(finished):
    return (finished[0] / "report.html").read_text()


class Structure(HTMLParser):
    """Tags that open and close in order, the text, and every attribute that could load something."""

    VOID = frozenset({"meta", "br", "img", "hr", "input", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text, self.count, self.identifiers = [], [], [], {}, []

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.loads += [(k, v) for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
        self.identifiers += [v for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    return structure


def test_self_contained(page):
    structure = parse(page)
    assert all(value.startswith("#") for _, value in structure.loads)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    assert "script" not in structure.count
    assert "link" not in structure.count


def test_identifiers_are_unique_and_references_resolve(page):
    structure = parse(page)
    assert len(structure.identifiers) == len(set(structure.identifiers))
    referred = {v[1:] for _, v in structure.loads} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert referred <= set(structure.identifiers)


def test_figures_and_numbers_are_there(page, finished):
    structure = parse(page)
    assert structure.count["svg"] == 4  # one task: loss, metric, bytes, exponents
    text = " ".join(structure.text)
    for summary in summarise(Store(finished[0]).runs):
        for line in cells(summary)[1]:
            for cell in line:
                assert cell in text
    for wanted in ("Training loss (nats)", "nats below the top rung", "python -m lognet.sweep", "torch"):
        assert wanted in text


def test_colours_are_the_pages_own(page):
    """Every placeholder colour was replaced by a variable that the style sheet defines in both schemes."""
    assert not re.search(r"#0[1-9]0[2-9]0[0-9a-f]", page)
    for name in set(re.findall(r"var\((--\w+)\)", page)):
        assert len(re.findall(rf"{name}:", page)) >= (2 if name != "--mono" else 1)


def test_it_renders_the_same_twice(finished):
    store = Store(finished[0])
    assert render(summarise(store.runs), store) == render(summarise(store.runs), store)


def test_colours_last_for_every_precision():
    entry = colours(contenders(["fp32", *map(str, range(2, 17))]))
    assert [entry[c] for c in contenders(["fp32", "12", "8"])[:2]] == [0, 1]
    assert set(entry.values()) == set(range(8))


def test_without_wrapped_contenders_there_is_no_histogram(finished):
    runs = [r for r in Store(finished[0]).runs if r["bits"] is None]
    summary = summarise(runs)[0]
    assert Figures([summary]).exponents(summary) is None


def test_diverged_runs_are_drawn_as_such(finished):
    store = Store(finished[0])
    for r in store.runs:
        if r["bits"] == 8:
            r |= {"status": "diverged", "metric": None, "curve": {"step": [], "loss": []}}
    page = render(summarise(store.runs), store)
    parse(page)
    assert "2 runs diverged" in page


def test_text_from_outside_is_escaped(finished):
    store = Store(finished[0])
    store.commands = ["python -m lognet.sweep --text '<script>alert(1)</script>'"]
    assert "<script" not in render(summarise(store.runs), store)
