"""The figures of the report, as SVG text to be placed inside an HTML page.

Text remains text: it can be selected and uses the page's font. Colours are CSS variables, so that one drawing works on
light and dark pages. matplotlib draws with placeholder colours, which are replaced afterwards.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .frontier import Field
from .plan import Contender
from .summary import Row, TaskSummary

INK, FAINT, CARD = "#010203", "#040506", "#040507"
"""Placeholders for text, for grid lines and for the background; contenders have placeholders of their own."""

WIDE, HALF = 11.0, 5.4
"""Widths in inches of figures that span the page and of those that share a row: in proportion, so that text in all
of them comes out at one size."""

PALETTE = 8
"""Colours that the page defines: c0 is FP32 Adam, c1 FP32 Madam, then one for each precision, over again if needed."""

MARKS = {
    "R": ("plain", "o"),
    "algebra": ("algebras", "P"),
    "PHM": ("PHM", "s"),
    "K": ("Kronecker", "D"),
    "L": ("low rank", "^"),
}
"""The mark of each family of layers."""

SMOOTHING = 0.05
"""Training losses are averaged over this share of a run, or lines of five contenders would hide each other."""


def colours(contenders: Sequence[Contender]) -> dict[Contender, int]:
    """The palette entry of each contender, the same in every figure of a report."""
    found: dict[Contender, int] = {}
    for c in sorted(set(contenders), key=lambda c: c.order):
        if c.bits is None:
            found[c] = 0 if c.optimizer == "adam" else 1
        else:
            found[c] = 2 + sum(1 for other in found if other.bits is not None) % (PALETTE - 2)
    return found


def _placeholder(entry: int) -> str:
    return f"#0708{entry:02x}"


class Figures:
    def __init__(self, summaries: Sequence[TaskSummary]) -> None:
        self.colour = colours([row.contender for s in summaries for row in s.rows])
        self.count = 0

    def _paint(self, contender: Contender) -> str:
        return _placeholder(self.colour[contender])

    def _new(self, width: float, height: float, columns: int = 1, **kwargs: Any) -> tuple[Any, Any]:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, **kwargs)
        for ax in axes if columns > 1 else [axes]:
            ax.patch.set_alpha(0)
            for side in ("top", "right", "left"):
                ax.spines[side].set_visible(False)
            ax.spines["bottom"].set_color(FAINT)
            ax.tick_params(colors=INK, labelsize=9, length=0)
            ax.grid(axis="y", color=FAINT, linewidth=0.8)
            ax.set_axisbelow(True)
        figure.patch.set_alpha(0)
        return figure, axes

    def _svg(self, figure: Any, label: str) -> str:
        import matplotlib

        self.count += 1
        text = io.StringIO()
        # The salt makes identifiers repeatable, and different from those of the other figures on the page.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"lognet{self.count}"}):
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(text, format="svg", metadata=nothing)
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(
            r' xmlns(:\w+)?="[^"]*"', "", svg
        )  # HTML does not need them, and without them the page contains no address
        svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
        svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{label}"', svg, count=1)
        # Names such as line2d_1 repeat from figure to figure; only those that something refers to are needed.
        used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
        svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
        svg = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \2px", svg)
        for placeholder, name in self._names().items():
            svg = svg.replace(placeholder, f"var(--{name})")
        return svg

    def _names(self) -> dict[str, str]:
        return {INK: "ink", FAINT: "faint", CARD: "card", **{_placeholder(i): f"c{i}" for i in range(PALETTE)}}

    def loss(self, summary: TaskSummary) -> str:
        """Training loss over steps: the mean over seeds, and a band from the lowest to the highest seed."""
        figure, ax = self._new(WIDE, 4.2)
        lowest = []
        for i, row in enumerate(summary.rows):
            curves = [r["curve"] for r in row.records if r["status"] == "ok"]
            if not curves:
                continue  # all of its runs diverged
            step = curves[0]["step"]
            smooth = [_smooth(c["loss"]) for c in curves]
            middle = [fmean(z) for z in zip(*smooth, strict=True)]
            band = [(min(z), max(z)) for z in zip(*smooth, strict=True)]
            colour = self._paint(row.contender)
            ax.fill_between(step, [b[0] for b in band], [b[1] for b in band], color=colour, alpha=0.13, linewidth=0)
            dashed = {"linestyle": (0, (4, 2))} if row.contender.optimizer == "adam" else {}
            # Each line is thinner than the lines below it, so that coinciding lines stay visible.
            width = max(1.1, 3.0 - 0.6 * max(0, i - 1)) if not dashed else 1.8
            ax.plot(step, middle, color=colour, linewidth=width, label=row.contender.label, **dashed)
            lowest.append(min(middle))
        if lowest and min(lowest) > 0:
            ax.set_yscale("log")
            _plain_log_ticks(ax.yaxis, ax.get_ylim())
        ax.set_xlabel("step", color=INK, fontsize=9)
        ax.set_title("Training loss (nats)", loc="left", color=INK, fontsize=10.5)
        ax.margins(x=0.01)
        self._legend(ax)
        return self._svg(figure, f"Training loss by precision, {summary.task.title}")

    def metric(self, summary: TaskSummary) -> str:
        """The metric against bits: every seed a dot, the mean a bar, FP32 at the right."""
        figure, ax = self._new(HALF, 3.7)
        rows = _by_bits(summary)
        madam = summary.row("madam-fp32")
        if madam is not None and madam.mean is not None:
            ax.axhline(madam.mean, color=self._paint(madam.contender), linewidth=1, linestyle=(0, (2, 3)), alpha=0.8)
        for i, row in enumerate(rows):
            if row.mean is None:
                ax.text(i, 0.5, "diverged", rotation=90, ha="center", va="center", color=INK, fontsize=9,
                        transform=ax.get_xaxis_transform())  # fmt: skip
                continue
            colour = self._paint(row.contender)
            spread = [i + 0.08 * (j - (len(row.values) - 1) / 2) for j in range(len(row.values))]
            ax.plot([i - 0.24, i + 0.24], [row.mean, row.mean], color=colour, linewidth=2.6, solid_capstyle="round")
            ax.plot(spread, row.values, "o", color=colour, markersize=5.5, alpha=0.75, markeredgewidth=0)
            ax.annotate(summary.number(row.mean), (i + 0.27, row.mean), color=INK, fontsize=8.5, va="center")
        _name_columns(ax, rows)
        better = "higher" if summary.task.higher_is_better else "lower"
        unit = f" ({summary.task.unit})" if summary.task.unit else ""
        title = f"{summary.task.metric.capitalize()}{unit}: {better} is better"
        ax.set_title(title, loc="left", color=INK, fontsize=10.5)
        ax.margins(y=0.15)
        return self._svg(figure, f"{summary.task.metric} against bits, {summary.task.title}")

    def size(self, summary: TaskSummary) -> str:
        """Bytes per parameter against bits: the weights, and on top of them the optimizer's state."""
        figure, ax = self._new(HALF, 3.7)
        rows = _by_bits(summary)
        for i, row in enumerate(rows):
            weights, training = row.bytes_each("weights"), row.bytes_each("training")
            colour = self._paint(row.contender)
            ax.bar(i, weights, 0.62, color=colour, linewidth=0)
            ax.bar(i, training - weights, 0.62, bottom=weights, color=colour, alpha=0.35, linewidth=0)
            ax.annotate(f"{weights:.2f}", (i, weights), (0, -3), textcoords="offset points", ha="center", va="top",
                        color=CARD, fontweight="bold", fontsize=8.5)  # fmt: skip
            ax.annotate(f"{training:.2f}", (i, training), (0, 3), textcoords="offset points", ha="center",
                        color=INK, fontsize=8.5)  # fmt: skip
        _name_columns(ax, rows)
        ax.set_title(
            "Bytes per parameter: weights (full), + optimizer state (pale)", loc="left", color=INK, fontsize=10.5
        )
        ax.margins(y=0.1)
        return self._svg(figure, f"Bytes per parameter against bits, {summary.task.title}")

    def frontier(self, field: Field) -> str:
        """Bytes of the weights against the metric: plain frontiers as lines, all networks as marks."""
        from matplotlib.lines import Line2D

        figure, ax = self._new(WIDE, 5.6)
        task = field.base.task
        for contender in field.contenders:
            best = field.frontier(contender)
            ax.plot([p.bytes for p in best], [p.value for p in best], color=self._paint(contender), linewidth=1.3)
        for p in field.points:
            colour, (_, mark) = self._paint(p.contender), MARKS[p.variant.family]
            size, open_mark = (3.5, False) if p.variant.plain else (6.5, p.variant.tables is not None)
            ax.plot(p.bytes, p.value, mark, markersize=size, color=colour, markeredgewidth=1.3,
                    markerfacecolor=CARD if open_mark else colour)  # fmt: skip
        fewest = field.contenders[-1]
        for p in field.points:
            if p.contender == fewest:  # one precision is labelled; the others follow to its right in the same order
                ax.annotate(str(p.variant), (p.bytes, p.value), (4, -9), textcoords="offset points", color=INK,
                            fontsize=7.5)  # fmt: skip
        ax.set_xscale("log")
        _plain_log_ticks(ax.xaxis, ax.get_xlim(), lambda value, _: f"{value / 1000:g} kB", sparse=2000)
        ax.grid(axis="x", color=FAINT, linewidth=0.8)
        ax.set_xlabel("bytes of the weights", color=INK, fontsize=9)
        better = "higher" if task.higher_is_better else "lower"
        ax.set_title(f"{task.metric.capitalize()}: {better} is better", loc="left", color=INK, fontsize=10.5)
        families = dict.fromkeys(p.variant.family for p in field.points)
        handles = [Line2D([], [], color=self._paint(c), linewidth=2.5, label=c.label) for c in field.contenders]
        handles += [
            Line2D([], [], color=INK, marker=mark, linestyle="", markersize=5, label=name)
            for name, mark in (MARKS[f] for f in MARKS if f in families)
        ]
        ax.legend(handles=handles, frameon=False, fontsize=8.5, labelcolor=INK, ncols=2)
        return self._svg(figure, f"Bytes against {task.metric}, {task.title}")

    def exponents(self, summary: TaskSummary) -> str | None:
        """Histograms of the exponents, before and after training, for each precision."""
        rows = [row for row in summary.rows if row.records[0]["exponents"] is not None]
        if not rows:
            return None
        figure, axes = self._new(WIDE, 3.1, columns=len(rows), sharey=True)
        figure.get_layout_engine().set(wspace=0.04)
        for ax, row in zip(axes if len(rows) > 1 else [axes], rows, strict=True):
            first = row.records[0]
            bins, nats = len(first["exponents"]["before"]), first["ladder"]["range_nats"][-1]
            # Density per nat below the top rung, so that ladders of different spacing share one axis.
            edges = [i * nats / bins for i in range(bins + 1)]
            for name in ("after", "before"):
                total = [sum(column) for column in zip(*(r["exponents"][name] for r in row.records), strict=True)]
                density = [c / max(1, sum(total)) / (nats / bins) for c in total]
                if name == "after":
                    ax.stairs(density, edges, fill=True, color=self._paint(row.contender), alpha=0.55, label="after")
                else:
                    ax.stairs(density, edges, color=INK, linewidth=1.2, label="before")
            ax.set_title(row.contender.label, loc="left", color=INK, fontsize=10.5)
            ax.set_xlabel("nats below the top rung", color=INK, fontsize=9)
            ax.set_yticklabels([])
            ax.margins(x=0.01)
            self._legend(ax)
        return self._svg(figure, f"Exponent histograms before and after training, {summary.task.title}")

    def _legend(self, ax: Any) -> None:
        ax.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="best", handlelength=1.8)


def _smooth(values: Sequence[float]) -> list[float]:
    width = max(1, round(SMOOTHING * len(values)))
    return [fmean(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))]


def _by_bits(summary: TaskSummary) -> list[Row]:
    """Rows from few bits to many: the axis of bits, with both FP32 contenders at its end."""
    place = lambda c: (c.bits or 32, c.optimizer != "madam", c.order)
    return sorted(summary.rows, key=lambda row: place(row.contender))


def _column_name(contender: Contender) -> str:
    if contender.bits is None:
        return f"FP32\n{contender.optimizer.capitalize()}"
    return contender.precision.replace("/", "\n") if contender.quantized else f"{contender.bits}\nbits"


def _name_columns(ax: Any, rows: Sequence[Row]) -> None:
    names = [_column_name(row.contender) for row in rows]
    ax.set_xticks(range(len(rows)), names, color=INK, fontsize=9)
    ax.set_xlim(-0.6, len(rows) - 0.3)


def _plain_log_ticks(
    axis: Any, limits: tuple[float, float], name: Any = lambda value, _: f"{value:g}", sparse: float = 200
) -> None:
    """Decimal numbers on a logarithmic axis, such as 0.1; only powers of ten if the limits' ratio is above `sparse`."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = limits
    subs = (1.0,) if high / low > sparse else (1.0, 2.0, 5.0) if high / low > 8 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(name)
    axis.set_minor_locator(NullLocator())
