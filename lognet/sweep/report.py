"""``report.html``: one self-contained file for light screens, dark screens and paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from .figures import Figures, colours
from .frontier import fields
from .plan import TASKS
from .results import CSV_NAME, JSON_NAME, Record, Store
from .summary import Difference, Row, TaskSummary, difference
from .tables import FRONTIER_LEGEND, Table, cells, comparison, conclusion, equal_bytes, headline

CSS = """
:root { color-scheme: light dark; --page:#fbfaf7; --card:#ffffff; --ink:#22252b; --soft:#646a75; --faint:#e2e0d9;
  --good:#1d7a55; --bad:#b3402e;
  --c0:#7d8590; --c1:#2b5fb8; --c2:#0f8f7f; --c3:#c98a12; --c4:#c8463f; --c5:#8a50b5; --c6:#5d8a1f; --c7:#b0508a; }
@media (prefers-color-scheme: dark) { :root { --page:#14161a; --card:#1c1f25; --ink:#e6e4de; --soft:#9aa0ab; --faint:#343942;
  --good:#5cc79b; --bad:#ee8a78;
  --c0:#9aa3af; --c1:#6d9df0; --c2:#3cc4b1; --c3:#e9b044; --c4:#f0766d; --c5:#bd8ae6; --c6:#9cc85a; --c7:#e38cc0; } }
* { box-sizing: border-box }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "DejaVu Sans", sans-serif }
main { max-width:1120px; margin:0 auto; padding:48px 28px 72px }
h1 { font-size:34px; line-height:1.15; letter-spacing:-.02em; margin:0 0 8px }
h2 { font-size:23px; letter-spacing:-.01em; margin:56px 0 2px }
summary { cursor:pointer; margin:14px 0 0; font-weight:600 } details h2 { margin:14px 0 2px }
h3 { font-size:15px; margin:28px 0 6px }
p { margin:8px 0; max-width:78ch } .soft { color:var(--soft) } small { color:var(--soft) }
.cards { display:grid; grid-template-columns:repeat(auto-fit, minmax(215px, 1fr)); gap:14px; margin:26px 0 8px }
.card, figure, .table { background:var(--card); border:1px solid var(--faint); border-radius:12px }
.card { padding:16px 18px } .card b { display:block; font-size:27px; line-height:1.2; letter-spacing:-.02em;
  font-variant-numeric:tabular-nums } .card span { color:var(--soft); font-size:14px; line-height:1.4; display:block }
.table { overflow-x:auto; margin:18px 0 }
table { border-collapse:collapse; width:100%; font-size:14px; font-variant-numeric:tabular-nums }
th, td { text-align:right; padding:9px 12px; white-space:nowrap } th { color:var(--soft); font-weight:500 }
th:first-child, td:first-child { text-align:left } td:first-child { font-weight:600 }
tbody tr { border-top:1px solid var(--faint) } td.mean { font-weight:700 }
i.dot { display:inline-block; width:10px; height:10px; border-radius:50%; margin-right:9px }
.in { color:var(--good) } .out { color:var(--bad) }
.figures { display:grid; grid-template-columns:repeat(auto-fit, minmax(400px, 1fr)); gap:14px }
figure { margin:0; padding:14px 14px 8px } figure.wide { grid-column:1 / -1 }
figure svg { display:block; width:100%; height:auto } svg text { font-family:inherit }
figcaption { color:var(--soft); font-size:13px; padding:4px 4px 4px }
pre, code { font:13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
pre { background:var(--card); border:1px solid var(--faint); border-radius:12px; padding:14px 16px; overflow-x:auto }
dl { display:grid; grid-template-columns:max-content 1fr; gap:3px 20px; font-size:14px; margin:8px 0 }
dt { color:var(--soft) } dd { margin:0; overflow-wrap:anywhere }
@media print { body { background:#fff } .card, figure, .table { break-inside:avoid } }
"""


def render(summaries: Sequence[TaskSummary], store: Store) -> str:
    figures = Figures(summaries)
    palette = colours([row.contender for s in summaries for row in s.rows])
    shown = [s for s in summaries if s.task.name in TASKS] or summaries[:1]  # variants have their sections folded
    body = [
        "<h1>Precision sweep</h1>",
        f'<p class="soft">{_subtitle(summaries)}</p>',
        f'<div class="cards">{"".join(map(_card, shown))}{_bytes_card(summaries)}</div>',
    ]
    body += _comparisons(summaries) + _frontiers(summaries, figures)
    for s in summaries:
        section = _section(s, figures, {c.key: i for c, i in palette.items()})
        if s not in shown:
            section = [f"<details><summary>{escape(s.task.name)}</summary>", *section, "</details>"]
        body += section
    body += _settings(summaries, store)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Precision sweep</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _subtitle(summaries: Sequence[TaskSummary]) -> str:
    records = [r for s in summaries for row in s.rows for r in row.records]
    names = list(dict.fromkeys(row.contender.label for s in summaries for row in s.rows))
    seeds = {r["seed"] for r in records}
    tasks = ", ".join(s.task.name for s in summaries)
    diverged = sum(r["status"] == "diverged" for r in records)
    return escape(
        f"{', '.join(names)} on {tasks}: {len(records)} runs over {len(seeds)} seed{'s' * (len(seeds) != 1)}, every"
        f" contender on the same data in the same order. {'No run' if not diverged else f'{diverged} runs'} diverged."
    )


def _fewest_bits(summary: TaskSummary) -> Row | None:
    """The contender whose weights have the fewest bits, if any has fewer than 32."""
    wrapped = [row for row in summary.rows if row.contender.bits is not None and row.mean is not None]
    return min(wrapped, key=lambda row: row.contender.bits or 32, default=None)  # of several, the first in the table


def _card(summary: TaskSummary) -> str:
    """The result at the fewest bits, and its differences to FP32."""
    row = _fewest_bits(summary) or summary.rows[0]
    value = "diverged" if row.mean is None else summary.number(row.mean) + (f" {summary.task.unit}".rstrip())
    told = [f"{summary.task.metric}, {summary.task.name}, {row.contender.label}."]
    for other in (summary.row("madam-fp32"), summary.row("adam-fp32")):
        d = difference(row, other)
        if d is not None and other is not None:
            told.append(f"{_verdict(summary, d)} {other.contender.label}.")
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(" ".join(told))}</span></div>'


def _verdict(summary: TaskSummary, d: Difference) -> str:
    better = (d.value > 0) == summary.task.higher_is_better
    amount = summary.number(abs(d.value))
    if d.within_noise:
        return f"Within seed noise ({summary.number(d.value, signed=True)}) of"
    return f"{amount} {'better' if better else 'worse'} than"


def _bytes_card(summaries: Sequence[TaskSummary]) -> str:
    """The bytes at the fewest bits, on the task with most parameters."""
    summary = max(summaries, key=lambda s: s.rows[0].records[0]["bytes"]["parameters"])
    row, adam = _fewest_bits(summary), summary.row("adam-fp32")
    if row is None:
        return ""
    text = (
        f"a parameter holds in training at {row.contender.bits} bits, {row.bytes_each('weights'):.2f} of them weights."
    )
    if adam is not None:
        text += f" FP32 Adam: {adam.bytes_each('training'):.1f} and {adam.bytes_each('weights'):.1f}."
    return f'<div class="card"><b>{row.bytes_each("training"):.2f} bytes</b><span>{escape(text)}</span></div>'


def _comparisons(summaries: Sequence[TaskSummary]) -> list[str]:
    """The models of each task side by side, where there are several."""
    parts = []
    for base, table in comparison(summaries).items():
        parts += [
            f"<h2>Models of {escape(base)} compared</h2>",
            '<p class="soft">Means over seeds; bytes of the weights; multiply-adds of one example.</p>',
            _plain_table(table),
        ]
    return parts


def _frontiers(summaries: Sequence[TaskSummary], figures: Figures) -> list[str]:
    """Bytes against the metric, where networks that are not plain stand beside plain ones."""
    parts = []
    for base, field in fields(summaries).items():
        caption = (
            "Lines join the plain networks that no smaller one equals, one line a precision. On the better side of its line"
            " a network beats plain ones of its bytes and precision. Open marks: embeddings and output factored too."
        )
        parts += [
            f"<h2>{escape(base.capitalize())} against plain layers of equal bytes</h2>",
            f"<p>{escape(conclusion(field))}</p>",
            '<div class="figures">',
            _figure(figures.frontier(field), caption, wide=True),
            "</div>",
            _plain_table(equal_bytes(field)),
            f"<p><small>{escape(FRONTIER_LEGEND.capitalize())}.</small></p>",
        ]
    return parts


def _plain_table(table: Table) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in table.heads)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in table.body)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _section(summary: TaskSummary, figures: Figures, palette: dict[str, int]) -> list[str]:
    parts = [
        f"<h2>{escape(summary.task.title)}</h2>",
        f'<p class="soft">{escape(headline(summary))}</p>',
        _table(summary, palette),
        '<div class="figures">',
        _figure(
            figures.loss(summary), "Mean over seeds, running mean over 5% of a run; bands span the seeds.", wide=True
        ),
        _figure(figures.metric(summary), "A dot is a seed, a bar the mean; the dotted line is FP32 Madam."),
        _figure(figures.size(summary), "Measured: all memory really held, gradients and activations apart."),
    ]
    histogram = figures.exponents(summary)
    if histogram is not None:
        caption = (
            "Where the weights of all layers stand on the ladder. The top rung is the largest magnitude, at the left;"
            " each nat to the right is smaller by a factor e. All seeds together."
        )
        parts.append(_figure(histogram, caption, wide=True))
    return [*parts, "</div>"]


def _figure(svg: str, caption: str, wide: bool = False) -> str:
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(summary: TaskSummary, palette: dict[str, int]) -> str:
    heads, body = cells(summary)
    madam, adam = summary.row("madam-fp32"), summary.row("adam-fp32")
    compared = {heads.index("vs FP32 Madam"): madam, heads.index("vs FP32 Adam"): adam}
    titles = {"weights": "weights, B/par.", "training": "training, B/par."}
    lines = ["<tr>" + "".join(f"<th>{escape(titles.get(h, h))}</th>" for h in heads) + "</tr></thead><tbody>"]
    for row, line in zip(summary.rows, body, strict=True):
        cells_ = [
            f'<td><i class="dot" style="background:var(--c{palette[row.contender.key]})"></i>{escape(line[0])}</td>'
        ]
        for i, text in enumerate(line[1:], 1):
            kind = "mean" if heads[i] == "mean" else ""
            if i in compared:
                d = difference(row, compared[i])
                worse = d is not None and (d.value < 0) == summary.task.higher_is_better
                if d is not None and d.within_noise is not None:
                    kind = "out" if worse and not d.within_noise else "in"
            cells_.append(f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>")
        lines.append("<tr>" + "".join(cells_) + "</tr>")
    note = (
        "Range: worst and best seed. Differences of means, with two pooled standard errors over seeds:"
        " green is no worse than that noise, red is worse. B/par.: bytes per parameter, of the weights and in training,"
        " with the optimizer's state."
    )
    return f'<div class="table"><table><thead>{"".join(lines)}</tbody></table></div><p><small>{note}</small></p>'


def _settings(summaries: Sequence[TaskSummary], store: Store) -> list[str]:
    """The settings and versions that are needed to repeat the runs."""
    parts = ["<h2>Settings and versions</h2>"]
    parts.append("<p>To get the same runs:</p><pre>" + escape("\n".join(store.commands)) + "</pre>")
    parts.append(
        f"<p>All numbers, with the settings of each run, are in <code>{JSON_NAME}</code> and <code>{CSV_NAME}</code>"
        " beside this page.</p>"
    )
    for s in summaries:
        data = store.tasks[s.task.name]["data"]
        shared = s.settings
        rows = {
            "data": f"{data['origin']}: {data['train_examples']:,} for training, {data['test_examples']:,} held out",
            "network": _plain(shared["model"]),
            "batch, steps": f"{shared['batch']}, {shared['steps']:,}",
            "learning rate": _plain(shared["schedule"]),
            "seeds": ", ".join(str(x) for x in sorted({r["seed"] for row in s.rows for r in row.records})),
        }
        for row in s.rows:
            seconds = sorted(r["cpu_seconds"] for r in row.records)[len(row.records) // 2]
            chosen = _plain(row.records[0]["settings"]["optimizer"], without=("name",))
            rows[row.contender.label] = f"{chosen}; {seconds:.1f} s of CPU a run"
            ladder = row.records[0]["ladder"]
            if ladder is not None:
                rows[f"{row.contender.label}: ladder"] = _ladder(ladder, row.records)
        parts += [f"<h3>{escape(s.task.title)}</h3>", _list(rows)]
    parts += ["<h3>Versions</h3>", _list(_versions([r for s in summaries for row in s.rows for r in row.records]))]
    return parts


def _plain(settings: dict[str, Any], without: Sequence[str] = ()) -> str:
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in settings.items() if k not in without)


def _ladder(ladder: dict[str, Any], records: Sequence[Record]) -> str:
    top = sum(r["ladder"]["share_at_top"] for r in records) / len(records)
    bottom = sum(r["ladder"]["share_at_bottom"] for r in records) / len(records)
    spacing = ", ".join(f"{x:.4g}" for x in ladder["base_precision"])
    span = ", ".join(f"{x:.2f}" for x in ladder["range_nats"])
    return (
        f"{ladder['rungs']:,} rungs, {spacing} nats apart, {span} nats in all, {ladder['tensors']} tensors;"
        f" after training {top:.1%} of the weights stand on the top rung and {bottom:.1%} on the last"
    )


def _list(rows: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows.items()) + "</dl>"


def _versions(records: Sequence[Record]) -> dict[str, str]:
    """The versions that the runs were made with; several where a folder was extended on another machine."""
    found: dict[str, list[str]] = {}
    for r in records:
        for name, value in r["versions"].items():
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return {name: " and ".join(values) for name, values in found.items()}
