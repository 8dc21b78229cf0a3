"""What the figures of a report share. No pyplot, so no global state and no display.

Methods differ in colour, marker and line style, in the colour-blind-safe order of Okabe and Ito (2008), so that
a figure survives grey printing. Classes always run from the rarest to the most frequent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts.numbers import MethodNumbers, Numbers, group_key
from fer_bench.reports.facts.verdicts import CLAIMS
from fer_bench.reports.render.figure_files import STYLE
from fer_bench.stats.intervals import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), "-")
WIDTH = 8.0
CROWD = 16  # methods beyond which some figures name only those that claims are about
CHARACTERS = 13.5  # of a legend in an inch
ROW = 0.2  # of a legend, in inches
MOST = 100  # classes up to which each has a line, a row of a matrix, or a name in a figure


def styled(draw: Callable[..., Drawing | None]) -> Callable[..., Drawing | None]:
    """Decorator: draw with the settings that all figures share."""

    @wraps(draw)
    def styled_draw(*args: Any, **kwargs: Any) -> Drawing | None:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled_draw


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Drawing, np.ndarray]:
    """A figure of that many inches and its axes, [rows, columns]."""
    figure = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def looks(numbers: Numbers) -> dict[str, tuple]:
    """Colour, marker and line of each method: the same in every figure."""
    return looks_of([m.label for m in numbers.methods])


def looks_of(labels: Sequence[str]) -> dict[str, tuple]:
    """Colour, marker and line of each of some methods; colour and marker together are those of no other, up to 49."""
    n = len(COLOURS)  # as many as there are markers: each round of colours moves on by one marker
    return {label: (COLOURS[k % n], MARKERS[(k + k // n) % n], LINES[k % n]) for k, label in enumerate(labels)}


def shorten(text: str, limit: int = 44) -> str:
    """Text that fits into a legend."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def legend_name(method: MethodNumbers) -> str:
    return shorten(method.short) + method.mark


def crosses(
    axis: Axes, numbers: Numbers, methods: Sequence[MethodNumbers], of: Callable[[MethodNumbers], tuple]
) -> None:
    """Methods as points with their intervals across and upwards, in %; `of` gives both.

    Of more than :data:`CROWD` methods only the references and those with a claim about the tail are named; the others
    are grey.
    """
    own = looks(numbers)
    references = (numbers.study.reference, numbers.second)
    named = [m for m in methods if m.label in references or m.verdicts.get(group_key("tail")) in CLAIMS]
    named = list(methods) if len(methods) <= CROWD else named
    others = [m for m in methods if m not in named]
    for k, method in enumerate([*others, *named]):
        x, y = of(method)
        colour, marker, _ = own[method.label] if method in named else ("#AAAAAA", "o", "-")
        told = f"{len(others)} others, no claim" if k == 0 else "_"
        axis.errorbar(
            100 * x.value, 100 * y.value, xerr=_arms(x), yerr=_arms(y), color=colour, marker=marker,
            markersize=6 if method in named else 3.5, linewidth=1.1, capsize=2.5, linestyle="none",
            label=legend_name(method) if method in named else told,
        )  # fmt: skip


def _arms(interval: Interval) -> list[list[float]]:
    """Lengths of both arms; a percentile interval may leave out the value itself, on one side."""
    return [[100 * max(0.0, interval.value - interval.low)], [100 * max(0.0, interval.high - interval.value)]]


def legend(figure: Drawing, axis: Axes, below: bool = True) -> None:
    """The legend of `axis` outside all axes, in as many columns as fit; the figure grows by rows beyond the fourth."""
    handles, labels = axis.get_legend_handles_labels()
    short = [shorten(label, 26) for label in labels]
    if len(labels) > CROWD and len(set(short)) == len(short):
        labels = short
    longest = max(map(len, labels), default=0)
    columns = max(1, min(len(labels), int(CHARACTERS * figure.get_figwidth() / (longest + 8))))
    figure.set_figheight(figure.get_figheight() + ROW * max(0, -(-len(labels) // columns) - 4))
    figure.legend(handles, labels, loc="outside lower center" if below else "outside upper center", ncols=columns)


def watermark(numbers: Numbers, figure: Drawing) -> None:
    """Write across the figure that its numbers are no fair estimate, where they are not."""
    if numbers.study.watermarks:
        figure.text(
            0.5,
            0.5,
            "not a fair estimate",
            ha="center",
            va="center",
            fontsize=34,
            rotation=20,
            color="#D55E00",
            alpha=0.18,
        )


def class_ticks(numbers: Numbers) -> list[str]:
    study = numbers.study
    counts = study.counts.get("train", study.counts["test"])
    return [f"{study.classes[i]}\n{counts[i]:,} train · {study.counts['test'][i]:,} test" for i in study.order[:MOST]]


def dots(axis: Axes, rows: Sequence[tuple[str, tuple, Sequence[Interval | None]]]) -> None:
    """Horizontal intervals, one band a position and one dot each of `shown`: name, look, intervals where known."""
    bands = len(rows[0][2])
    step = 0.74 / max(1, len(rows))
    for k, (name, (colour, marker, _), intervals) in enumerate(rows):
        known = [(place, interval) for place, interval in enumerate(intervals) if interval is not None]
        y = np.array([place for place, _ in known]) + (k - (len(rows) - 1) / 2) * step
        value, low, high = (100 * np.array([getattr(i, a) for _, i in known]) for a in ("value", "low", "high"))
        axis.hlines(y, low, high, color=colour, linewidth=1.6, alpha=0.75)
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
        axis.plot(value, y, marker, color=colour, markersize=5, label=name, **edge)
    for between in np.arange(0.5, bands - 1):
        axis.axhline(between, color="#EEEEEE", linewidth=0.8, zorder=0)
    axis.set_ylim(bands - 0.5, -0.5)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def dots_of(axis: Axes, numbers: Numbers, rows: Sequence[tuple[MethodNumbers, list[Interval]]]) -> None:
    by_method = looks(numbers)
    dots(axis, [(legend_name(method), by_method[method.label], intervals) for method, intervals in rows])


def dot_height(classes: int, methods: int) -> float:
    return 1.1 + classes * max(0.42, 0.125 * methods + 0.08)
