"""The speed suite: every row at toy size, what a row says, and the report."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.speed import cli, measure, optimizer, reading, resident
from benchmarks.speed.measure import TOY, Ratio, Row, by_turns, compare, faster, ratio, timed
from benchmarks.speed.report import line_of, render

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # processes that the suite starts find `benchmarks` there
    monkeypatch.setattr(measure, "WARM_UP", 1)


PARTS = [optimizer.large, optimizer.many, optimizer.growth]
PARTS += [reading.decoding, reading.encoding, reading.products, reading.generation]


@pytest.mark.parametrize("part", PARTS)
def test_rows_of_parts(part):
    rows = list(part(TOY))
    assert rows
    assert all(row.value > 0 and row.spread[0] <= row.value <= row.spread[1] for row in rows)


@pytest.mark.parametrize("theme", ["training", "bytes", "import"])
def test_rows_of_themes(theme):
    rows = list(cli.THEMES[theme](TOY))
    assert rows
    assert all(row.value is not None for row in rows)


def test_bytes_are_those_of_the_tensors():
    """Codes, sign, averages and their scales; at toy size the scales of tensors and blocks weigh more than promised."""
    rows = {row.name: row.value for row in cli.THEMES["bytes"](replace(TOY, model=128))}
    assert rows["8 bits, state_bits=32"] == pytest.approx(1.125 + 8, abs=0.05)
    assert rows["8 bits, state_bits=4"] == pytest.approx(1.125 + 1 + 1 / 16, abs=0.05)
    assert rows["8 bits, state_bits=4, no momentum"] == pytest.approx(1.125 + 0.5 + 1 / 32, abs=0.05)


def test_memory_of_processes():
    size = replace(TOY, resident=2, layer=512)
    idle, adam = (resident.measured(kind, size) for kind in ("idle", "adam"))
    held = 16 * size.resident * size.layer * (size.layer + 1)  # weights, gradients and two averages
    assert held <= adam - idle <= 40 * held


def test_peers_that_are_not_installed(monkeypatch):
    for name in ("torchao", "torchao.optim", "bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    rows = list(optimizer.peers(TOY))
    assert [row.note for row in rows] == ["not installed"] * 2
    assert all(row.reached is None for row in rows)


def test_contenders_take_turns_and_are_compared_within_a_round(monkeypatch):
    calls, clock = [], iter(range(1000))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock) ** 2)
    seconds = by_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 20)
    assert [len(times) for times in seconds.values()] == [20, 20]
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, len(calls), 2))
    assert len({tuple(calls[i : i + 2]) for i in range(0, len(calls), 2)}) == 2
    found = ratio([1.0, 2.0, 30.0, 4.0], [1.0, 1.0, 10.0, 1.0])
    assert (found.value, found.seconds, found.reference_seconds) == (2.5, 3.0, 1.0)
    assert found.low <= 2.5 <= found.high


def test_the_slower_has_the_larger_ratio():
    work = lambda n: lambda: sum(range(n))
    found = compare({"long": work(200_000), "short": work(2_000)}, "short", 5)
    assert list(found) == ["long"]
    assert found["long"].value > 5


def test_what_a_row_says():
    found = Ratio(0.5, 0.4, 0.7, 0.45, 0.001, 0.002)
    row = timed("theme", "ours", "theirs", found, 0.6)
    assert row.reached
    assert line_of(row) == "| ours | theirs | 0.50 | 0.40 .. 0.70 | 0.45 | <= 0.60 | yes | 1.00 ms against 2.00 ms |"
    assert not timed("theme", "ours", "theirs", found, 0.45).reached
    times_faster = faster("theme", "ours", "theirs", found, 2.5)
    assert (times_faster.value, times_faster.spread) == (2.0, (1 / 0.7, 2.5))
    assert times_faster.reached is False
    assert "**no**" in line_of(times_faster)
    assert replace(times_faster, bound=None).reached is None


def test_the_report_and_the_command_line(tmp_path):
    text = render(
        [Row("Theme", "ours", "theirs", 3.0, 2.0), Row("Other", "ours", "theirs", None, 2.0)], TOY, 2, "make it"
    )
    assert "1 of 1 bounds are not reached." in text
    assert text.index("## Theme") < text.index("| ours |") < text.index("## Other")
    threads = torch.get_num_threads()
    try:
        assert cli.main(["--size", "toy", "--themes", "bytes", "--out", str(tmp_path / "b.md")]) == 0
    finally:
        torch.set_num_threads(threads)
    written = (tmp_path / "b.md").read_text()
    assert "## Bytes a parameter" in written
    assert "8 bits, state_bits=4, no momentum" in written
