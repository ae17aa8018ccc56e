"""The schema of ``results.json`` as a set of small checks; ``docs/sweep.md`` says what each field means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .errors import SweepError
from .plan import TASKS, Contender, fingerprint, is_task

SCHEMA = 1
"""Increase this when a field changes its meaning or is removed, not for a new field."""

CURVE_POINTS = 200
HISTOGRAM_BINS = 64

Check = Callable[[Any, str], None]


def _fail(where: str, wanted: str, value: Any) -> None:
    shown = repr(value)
    raise SweepError(f"{where} should be {wanted}, not {shown if len(shown) <= 60 else shown[:57] + '...'}")


def _is(wanted: str, test: Callable[[Any], bool]) -> Check:
    def check(value: Any, where: str) -> None:
        if not test(value):
            _fail(where, wanted, value)

    return check


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_text = _is("a string", lambda v: isinstance(v, str))
_count = _is("an integer >= 0", lambda v: _integer(v) and v >= 0)
_amount = _is("a number >= 0", lambda v: _number(v) and v >= 0)
_share = _is("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1)
_real = _is("a finite number", _number)
_flag = _is("true or false", lambda v: isinstance(v, bool))
_dict = _is("an object", lambda v: isinstance(v, dict))


def _or_null(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def _list(inner: Check, at_most: int | None = None) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            _fail(where, "a list", value)
        if at_most is not None and len(value) > at_most:
            raise SweepError(f"{where} should have at most {at_most} entries, not {len(value)}")
        for i, item in enumerate(value):
            inner(item, f"{where}[{i}]")

    return check


def _fields(**inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _dict(value, where or "the document")
        for name, test in inner.items():
            if name not in value:
                raise SweepError(f"{where or 'the document'} lacks {name!r}")
            test(value[name], f"{where}.{name}" if where else name)

    return check


_versions = _fields(lognet=_text, torch=_text, numpy=_text, python=_text, platform=_text)
_data = _fields(origin=_text, sha256=_text, train_examples=_count, test_examples=_count, classes=_count)
_task = _fields(title=_text, metric=_text, unit=_text, higher_is_better=_flag, decimals=_count, data=_data)
_curve = _fields(step=_list(_count, CURVE_POINTS), loss=_list(_real, CURVE_POINTS))
_bytes = _fields(parameters=_count, weights=_count, training=_count)
_exponents = _fields(before=_list(_count, HISTOGRAM_BINS), after=_list(_count, HISTOGRAM_BINS))
_ladder = _fields(
    bits=_count,
    rungs=_count,
    base_precision=_list(_real),
    range_nats=_list(_real),
    tensors=_count,
    share_at_top=_share,
    share_at_bottom=_share,
)
_run = _fields(
    task=_is(f"one of {', '.join(TASKS)}", is_task),
    contender=_text,
    optimizer=_is("adam or madam", lambda v: v in ("adam", "madam")),
    bits=_or_null(_is("a number of bits", lambda v: _integer(v) and 2 <= v <= 16)),
    seed=_count,
    fingerprint=_text,
    settings=_fields(task=_dict, optimizer=_fields(name=_text, lr=_real)),
    versions=_versions,
    status=_is("ok or diverged", lambda v: v in ("ok", "diverged")),
    metric=_or_null(_real),
    steps_done=_count,
    curve=_curve,
    seconds=_amount,
    cpu_seconds=_amount,
    device=_text,
    macs=_count,
    bytes=_bytes,
    exponents=_or_null(_exponents),
    ladder=_or_null(_ladder),
)
_document = _fields(schema=_count, commands=_list(_text), versions=_versions, tasks=_dict, runs=_list(_run))


_quantizer = _or_null(_is("the name of a quantizer or null", lambda v: isinstance(v, str)))


def check(document: Any) -> None:
    """Raise `SweepError` if `document` is not a results document; the message names the first field that is wrong."""
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise SweepError(f"schema should be {SCHEMA}, not {document['schema']!r}")
    _document(document, "")
    for name, task in document["tasks"].items():
        _task(task, f"tasks.{name}")
    seen = set()
    for i, run in enumerate(document["runs"]):
        where = f"runs[{i}]"
        if (run["status"] == "ok") != (run["metric"] is not None):
            raise SweepError(f"{where}.metric should be a number if and only if the status is ok")
        for name in ("activation", "gradient"):  # older runs have neither
            _quantizer(run.get(name), f"{where}.{name}")
        if run["fingerprint"] != fingerprint(run["settings"]):
            raise SweepError(f"{where}.fingerprint does not belong to its settings")
        if run["contender"] != Contender.of(run).key:
            raise SweepError(f"{where}.contender should be {Contender.of(run).key!r}")
        if len(run["curve"]["step"]) != len(run["curve"]["loss"]):
            raise SweepError(f"{where}.curve should have as many losses as steps")
        if run["task"] not in document["tasks"]:
            raise SweepError(f"tasks lacks {run['task']!r}")
        name = (run["task"], run["contender"], run["seed"])
        if name in seen:
            raise SweepError(f"{where} is there twice")
        seen.add(name)
