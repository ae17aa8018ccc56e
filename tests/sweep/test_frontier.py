"""Bytes against the metric: the plain frontier, what is read off it, and the verdict."""

import math

import pytest

from lognet.sweep.cli import main
from lognet.sweep.frontier import Field, Point, against, fields
from lognet.sweep.plan import TASKS, Contender, find_task
from lognet.sweep.summary import Row, TaskSummary, summarise
from lognet.sweep.tables import conclusion, equal_bytes, markdown
from lognet.sweep.variants import Variant

from .conftest import document

ADAM, EIGHT = Contender("adam", None), Contender("madam", 8)


def summary(name, values):
    """A task's summary from {contender: (bytes, metrics)}."""
    rows = []
    for contender, (size, metrics) in values.items():
        sizes = {"parameters": size, "weights": size, "training": size}
        settings = {"task": {"steps": 1}, "optimizer": {"lr": 0.1}}
        records = [
            {"metric": m, "bytes": sizes, "seed": i, "settings": settings, "macs": 1} for i, m in enumerate(metrics)
        ]
        rows.append(Row(contender, tuple(records)))
    return TaskSummary(find_task(name), tuple(rows))


@pytest.fixture
def field():
    found = fields(
        [
            summary("text", {EIGHT: (1600, [2.0, 2.2]), ADAM: (6400, [1.9, 1.9])}),
            summary("text/R@32", {EIGHT: (400, [3.0, 3.2]), ADAM: (1600, [2.5, 2.5])}),
            summary("text/R@48", {EIGHT: (800, [3.5, 3.5])}),
            summary("text/R@16", {EIGHT: (100, [4.0, 4.0])}),
            summary("text/K4", {EIGHT: (800, [2.0, 2.0]), ADAM: (3200, [2.19, 2.19])}),
            summary("text/K1", {EIGHT: (200, [3.5, 3.5])}),
            summary("text/K1+XS1", {EIGHT: (50, [4.0, 4.0])}),
            summary("text/H", {EIGHT: (400, [None, None])}),
        ]
    )
    assert list(found) == ["text"]
    return found["text"]


def test_the_frontier_leaves_out_what_a_smaller_network_equals(field):
    assert [str(p.variant) for p in field.frontier(EIGHT)] == ["R@16", "R@32", "R"]
    assert [p.bytes for p in field.frontier()] == [100, 400, 1600, 6400]
    assert [p.value for p in field.frontier()] == pytest.approx([4.0, 3.1, 2.1, 1.9])


def test_between_two_plain_networks_it_is_straight_in_the_logarithm_of_bytes(field):
    k4 = next(c for c in field.comparisons() if c.point.bytes == 800)
    assert k4.same_precision.value == pytest.approx(2.0 - (3.1 + 2.1) / 2)  # 800 is half way from 400 to 1600
    # variances of the means: 0.01 at both ends, 0 of K4 itself
    assert k4.same_precision.noise == pytest.approx(2 * math.sqrt(0.01 / 4 + 0.01 / 4))
    assert k4.any_precision == k4.same_precision


def test_at_and_beyond_the_ends():
    low, high = (Point(Variant(), EIGHT, size, value, 0.0) for size, value in ((100, 4.0), (400, 3.0)))
    found = lambda size, value=3.5: against(Point(Variant("K1"), EIGHT, size, value, 0.0), [low, high])
    assert found(99) is None
    assert found(100).value == -0.5
    assert found(400).value == 0.5
    assert found(10_000).value == 0.5
    assert against(low, []) is None


def test_verdicts(field):
    lines = {(line[0], line[1]): line for line in equal_bytes(field).body}
    assert list(lines) == [("K4", "FP32 Adam"), ("K4", "8-bit Madam"), ("K1", "8-bit Madam"), ("K1+XS1", "8-bit Madam")]
    assert lines["K4", "8-bit Madam"][2:] == ["800", "2.000", "-0.600 (± 0.141)", "-0.600 (± 0.141)", "yes"]
    # 3200 bytes in FP32: better than Adam's 2.2 in FP32 between 1600 and 6400, not than the 8-bit network's 2.0 there
    assert lines["K4", "FP32 Adam"][4:] == ["-0.010 (± 0.000)", "+0.190 (± 0.100)", "at this precision"]
    assert lines["K1", "8-bit Madam"][6] == "no"  # better by 0.05 than 3.55, within the noise
    assert lines["K1+XS1", "8-bit Madam"][4:] == ["-", "-", "none so small"]
    assert "K4, 8-bit Madam, 800 bytes: 2.000 against 2.600" in conclusion(field)


def test_higher_may_be_better():
    base = TaskSummary(TASKS["digits"], ())
    points = [
        (Variant(), 400, 90.0),
        (Variant("R", 16), 100, 80.0),
        (Variant("R", 24), 200, 79.0),
        (Variant("H"), 200, 88.0),
    ]
    field = Field(base, tuple(Point(v, EIGHT, size, value, 0.0) for v, size, value in points))
    assert [p.bytes for p in field.frontier(EIGHT)] == [100, 400]
    assert field.smallest_winner().any_precision.value == pytest.approx(88 - 85)


def test_one_seed_has_no_noise_and_still_a_verdict():
    field = fields([summary("text", {EIGHT: (400, [2.0])}), summary("text/K1", {EIGHT: (500, [1.9])})])["text"]
    [found] = field.comparisons()
    assert found.any_precision.noise is None
    assert equal_bytes(field).body[0][4:] == ["-0.100", "-0.100", "yes"]


def test_without_a_winner_it_says_so():
    field = fields([summary("text", {EIGHT: (400, [2.0])}), summary("text/K1", {EIGHT: (500, [2.1])})])["text"]
    assert conclusion(field) == "No factored network beats plain ones of equal bytes."


def test_without_plain_networks_there_is_nothing_to_compare():
    assert fields([summary("text/K1", {EIGHT: (500, [2.1])})]) == {}
    assert fields([summary("text", {EIGHT: (500, [2.1])}), summary("text/R@32", {EIGHT: (100, [2.1])})]) == {}


def test_one_command_gives_table_figure_and_markdown(tmp_path, capsys):
    out, story = tmp_path / "sweep", tmp_path / "story.txt"
    story.write_text("It was a dark and stormy night; the rain fell in torrents. " * 40)
    words = ["--tasks", "text", "--precisions", "fp32", "8", "--seeds", "0", "1", "--steps", "2", "--jobs", "1"]
    words += ["--model", "R", "R@16x1", "PHM8", "K1+XS1", "--text", str(story), "--out", str(out)]
    assert main(words) == 0
    stdout = capsys.readouterr().out
    runs = document(out)["runs"]
    assert len(runs) == 4 * 3 * 2
    sizes = {r["task"]: r["bytes"]["weights"] for r in runs if r["contender"] == "madam-8"}
    assert sizes["text/K1+XS1"] < sizes["text/R@16x1"] < sizes["text/PHM8"] < sizes["text"]
    assert all(r["macs"] > 0 for r in runs)
    assert "text: against plain layers of equal bytes" in stdout
    page, summaries = (out / "report.html").read_text(), summarise(runs)
    assert page.count("<svg") == 4 * 4 + 1
    assert "Text against plain layers of equal bytes" in page
    field = fields(summaries)["text"]
    assert conclusion(field) in stdout
    for line in equal_bytes(field).body:
        assert f"| {' | '.join(line)} |" in (out / "tables.md").read_text()
        assert all(f"<td>{cell}</td>" in page for cell in line)
    assert (out / "tables.md").read_text() == markdown(summaries)
