"""The schema's checks, one broken field at a time, and files that are whole or not there."""

import copy
import random

import pytest

from lognet.sweep.errors import SweepError
from lognet.sweep.results import CSV_COLUMNS, Store, as_csv, order
from lognet.sweep.schema import check

from .conftest import document


@pytest.fixture(scope="module")
def valid(finished):
    return document(finished[0])


def test_a_real_document_is_valid(valid):
    check(valid)


def broken(path, value):
    return pytest.param(path, value, id=".".join(map(str, path)))


GONE = object()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        broken(["schema"], 2),
        broken(["schema"], GONE),
        broken(["commands"], "one"),
        broken(["versions", "torch"], GONE),
        broken(["tasks", "digits"], GONE),
        broken(["tasks", "digits", "data", "sha256"], 5),
        broken(["runs"], {}),
        broken(["runs", 0], None),
        broken(["runs", 0, "task"], "mnist"),
        broken(["runs", 0, "optimizer"], "sgd"),
        broken(["runs", 0, "contender"], "madam-8"),
        broken(["runs", 0, "bits"], True),
        broken(["runs", 5, "bits"], 17),
        broken(["runs", 0, "seed"], -1),
        broken(["runs", 0, "fingerprint"], "0" * 16),
        broken(["runs", 0, "settings", "optimizer", "lr"], "fast"),
        broken(["runs", 0, "settings", "task", "steps"], 41),
        broken(["runs", 0, "status"], "fine"),
        broken(["runs", 0, "status"], "diverged"),
        broken(["runs", 0, "metric"], None),
        broken(["runs", 0, "metric"], float("inf")),
        broken(["runs", 0, "metric"], "99"),
        broken(["runs", 0, "curve", "loss", 1], None),
        broken(["runs", 0, "curve", "loss"], [1.0]),
        broken(["runs", 0, "curve", "step"], [1] * 201),
        broken(["runs", 0, "seconds"], -1.0),
        broken(["runs", 0, "bytes", "weights"], 1.5),
        broken(["runs", 5, "exponents", "before"], [1] * 65),
        broken(["runs", 5, "exponents", "after"], GONE),
        broken(["runs", 5, "ladder", "share_at_top"], 1.5),
        broken(["runs", 1, "seed"], 0),  # the second run becomes the first one again
    ],
)
def test_every_broken_field_is_named(valid, path, value):
    doc = copy.deepcopy(valid)
    spot = doc
    for step in path[:-1]:
        spot = spot[step]
    if value is GONE:
        del spot[path[-1]]
    else:
        spot[path[-1]] = value
    with pytest.raises(SweepError):
        check(doc)


def test_messages_name_the_field(valid):
    doc = copy.deepcopy(valid)
    doc["runs"][3]["bytes"]["weights"] = "many"
    with pytest.raises(SweepError, match=r"^runs\[3\]\.bytes\.weights should be an integer >= 0, not 'many'$"):
        check({**doc, "runs": doc["runs"]})


def test_runs_are_in_order_whichever_finished_first(valid):
    shuffled = random.sample(valid["runs"], len(valid["runs"]))
    assert sorted(shuffled, key=order) == valid["runs"]


def test_csv_has_a_row_a_run(valid):
    lines = as_csv(valid["runs"]).splitlines()
    assert lines[0] == ",".join(CSV_COLUMNS)
    assert len(lines) == 1 + len(valid["runs"])


def test_half_written_temporary_files_do_no_harm(tmp_path):
    (tmp_path / ".results.json.1-0a.tmp").write_text('{"schema":')
    assert Store(tmp_path).runs == []
