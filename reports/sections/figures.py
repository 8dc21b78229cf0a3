"""The figures of a report. No pyplot, so no global state and no display.

Methods are told apart by colour, marker and line style, in the colour-blind-safe order of Okabe and Ito (2008), so that
a figure survives grey printing. Classes always run from the rarest to the most frequent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from fer_bench.reports.facts.numbers import MethodNumbers, Numbers, recall_key
from fer_bench.reports.facts.phrases import mean_over_seeds
from fer_bench.reports.facts.records import MethodRuns, Run
from fer_bench.reports.render.figure_files import STYLE
from fer_bench.stats.intervals import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), "-")
WIDTH = 8.0
MOST = 100  # classes up to which each has a line, a row of a matrix, or a name in a figure
NUMBERED = 40  # classes up to which the cells of a matrix hold their numbers
WRITTEN = 8  # panels of confusion matrices up to which cells hold their number: more are an overview beside tables


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """Decorator: draw with the settings that all figures share."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure | None:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of that many inches and its axes, [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def looks(numbers: Numbers) -> dict[str, tuple]:
    """Colour, marker and line of each method: the same in every figure."""
    return looks_of([m.label for m in numbers.methods])


def looks_of(labels: Sequence[str]) -> dict[str, tuple]:
    """Colour, marker and line of each of some methods."""
    return dict(zip(labels, zip(cycle(COLOURS), cycle(MARKERS), cycle(LINES), strict=False), strict=False))


def shorten(text: str, limit: int = 44) -> str:
    """Text that fits into a legend."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _name(method: MethodNumbers) -> str:
    return shorten(method.label) + method.mark


def legend(figure: Figure, axis: Axes, below: bool = True) -> None:
    """The legend of `axis` outside all axes, in as many columns as fit."""
    handles, labels = axis.get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = max(1, min(len(labels), int(100 / (longest + 8))))
    figure.legend(handles, labels, loc="outside lower center" if below else "outside upper center", ncols=columns)


def watermark(numbers: Numbers, figure: Figure) -> None:
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


def _class_ticks(numbers: Numbers) -> list[str]:
    study = numbers.study
    counts = study.counts.get("train", study.counts["test"])
    return [f"{study.classes[i]}\n{counts[i]:,} train · {study.counts['test'][i]:,} test" for i in study.order[:MOST]]


def dots(axis: Axes, shown: Sequence[tuple[str, tuple, Sequence[Interval | None]]]) -> None:
    """Horizontal intervals, one band a position and one dot each of `shown`: name, look, intervals where known."""
    bands = len(shown[0][2])
    step = 0.74 / max(1, len(shown))
    for k, (name, (colour, marker, _), intervals) in enumerate(shown):
        known = [(place, found) for place, found in enumerate(intervals) if found is not None]
        y = np.array([place for place, _ in known]) + (k - (len(shown) - 1) / 2) * step
        value, low, high = (100 * np.array([getattr(i, a) for _, i in known]) for a in ("value", "low", "high"))
        axis.hlines(y, low, high, color=colour, linewidth=1.6, alpha=0.75)
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
        axis.plot(value, y, marker, color=colour, markersize=5, label=name, **edge)
    for between in np.arange(0.5, bands - 1):
        axis.axhline(between, color="#EEEEEE", linewidth=0.8, zorder=0)
    axis.set_ylim(bands - 0.5, -0.5)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def _dots_of(axis: Axes, numbers: Numbers, shown: Sequence[tuple[MethodNumbers, list[Interval]]]) -> None:
    by_method = looks(numbers)
    dots(axis, [(_name(method), by_method[method.label], intervals) for method, intervals in shown])


def _dot_height(classes: int, methods: int) -> float:
    return 1.1 + classes * max(0.42, 0.125 * methods + 0.08)


@styled
def recall(numbers: Numbers) -> Figure:
    """Recall of every class and method, with intervals; of more classes than :data:`MOST` the rarest."""
    order = numbers.study.order[:MOST]
    shown = [(m, [m.recall[i] for i in order]) for m in numbers.methods]
    figure, axes = new_figure(WIDTH, _dot_height(len(order), len(shown)))
    axis = axes[0, 0]
    _dots_of(axis, numbers, shown)
    axis.set_yticks(range(len(order)), _class_ticks(numbers))
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"recall, % ({mean_over_seeds(numbers)}; 95 % interval)")
    legend(figure, axis)
    watermark(numbers, figure)
    return figure


@styled
def gains(numbers: Numbers) -> Figure | None:
    """Gain over the reference for every class and for the mean over classes; None without a comparison."""
    if not numbers.compared:
        return None
    study = numbers.study
    keys = [*(recall_key(study.classes[i]) for i in study.order[:MOST]), "mean_recall"]
    shown = [(m, [m.gains[k] for k in keys]) for m in numbers.compared]
    figure, axes = new_figure(WIDTH, _dot_height(len(keys), len(shown)))
    axis = axes[0, 0]
    _dots_of(axis, numbers, shown)
    axis.axvline(0, color="#333333", linewidth=1)
    axis.axhline(len(keys) - 1.5, color="#555555", linewidth=0.8)
    axis.set_yticks(range(len(keys)), [*_class_ticks(numbers), "mean-class accuracy"])
    axis.set_xlabel(f"gain over {shorten(study.reference or '')}, percentage points (95 % interval, paired)")
    legend(figure, axis)
    watermark(numbers, figure)
    return figure


@styled
def frequency(numbers: Numbers) -> Figure | None:
    """Recall against the number of training images, on a logarithmic axis; None where the counts are not known."""
    study = numbers.study
    if "train" not in study.counts or study.counts["train"].min() < 1:
        return None
    x = study.counts["train"][study.order].astype(float)
    figure, axes = new_figure(WIDTH, 4.2)
    axis = axes[0, 0]
    for method in numbers.methods:
        colour, marker, line = looks(numbers)[method.label]
        y = 100 * np.array([method.recall[i].value for i in study.order])
        options: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axis.plot(x, y, linestyle=line, color=colour, linewidth=1.2, alpha=0.35)
        axis.plot(x, y, marker, color=colour, label=_name(method), **options)
    axis.set_xscale("log")
    axis.set_xlim(x.min() / 1.15, x.max() * 1.15)
    axis.xaxis.set_major_locator(FixedLocator(_ticks(x)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(_ticks(x), [f"{t:,}" for t in _ticks(x)])
    if len(x) <= MOST:
        _name_classes(axis, [study.classes[i] for i in study.order], x)
    axis.set_xlabel("training images of the class (log scale)")
    axis.set_ylabel("recall, %")
    axis.grid(axis="y")
    legend(figure, axis)
    watermark(numbers, figure)
    return figure


def _ticks(x: np.ndarray) -> list[int]:
    """Round numbers 1, 2, 5 times powers of ten inside the range, and no fewer than one."""
    rounds = [int(m * 10.0**e) for e in range(7) for m in (1, 2, 5)]
    return [r for r in rounds if x.min() / 1.15 <= r <= x.max() * 1.15] or [int(x.min())]


def _name_classes(axis: Axes, names: list[str], x: np.ndarray) -> None:
    """Class names on the upper edge, moved apart where counts are close, each tied to its count by a line."""
    low, high = np.log(x.min() / 1.15), np.log(x.max() * 1.15)
    places = (np.log(x) - low) / (high - low)
    gap = min(0.045, 1 / len(x))
    spread = places.copy()
    for i in range(1, len(spread)):
        spread[i] = max(spread[i], spread[i - 1] + gap)
    spread -= max(0.0, spread[-1] - 0.995)
    for i in range(len(spread) - 2, -1, -1):
        spread[i] = min(spread[i], spread[i + 1] - gap)
    for name, place, label in zip(names, places, spread, strict=True):
        axis.axvline(np.exp(low + place * (high - low)), color="#E4E4E4", linewidth=0.8, zorder=0)
        options: dict[str, Any] = {"transform": axis.transAxes, "color": "#999999", "linewidth": 0.7, "clip_on": False}
        axis.plot([place, label], [1.0, 1.05], **options)
        axis.text(label, 1.06, name, transform=axis.transAxes, rotation=45, ha="left", va="bottom", fontsize=8)


@styled
def confusion(numbers: Numbers) -> Figure:
    """Row-normalised confusion matrices, one panel a method, classes from the rarest to the most frequent.

    Above :data:`MOST` classes their rarest are shown.
    """
    if len(numbers.methods) > WRITTEN:
        return _overview(numbers)
    names = _shown_names(numbers)
    columns = min(len(numbers.methods), 3 if len(numbers.methods) != 4 else 2)
    rows = -(-len(numbers.methods) // columns)
    side = (0.36 if len(names) <= NUMBERED else 0.15) * len(names) + 0.35  # inches
    figure, axes = new_figure(columns * side + 1.4, rows * (side + 0.35) + 0.8, rows, columns, sharex=True, sharey=True)
    shown: Any = None
    for axis, method in zip(axes.flat, numbers.methods, strict=False):
        shares = _shares(numbers, method)
        shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        if len(names) <= NUMBERED:
            _write_cells(axis, shares)
        axis.set_title(_matrix_title(method, len(names)))
        small: dict[str, Any] = {} if len(names) <= NUMBERED else {"fontsize": 6}
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", **small)
        axis.set_yticks(range(len(names)), names, **small)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    for axis in axes.flat[len(numbers.methods) :]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, len(numbers.methods) - columns) : len(numbers.methods)]:
        axis.tick_params(labelbottom=True)
    _explain_matrices(numbers, figure, shown, axes)
    return figure


def _overview(numbers: Numbers) -> Figure:
    """Many confusion matrices in one picture, which is drawn and laid out faster than as many axes."""
    names = _shown_names(numbers)
    size, columns = len(names), 3
    rows, pitch = -(-len(numbers.methods) // columns), len(names) + 1  # a cell apart, and above each its title
    picture = np.full((rows * pitch, columns * pitch), np.nan)
    figure, axes = new_figure(0.2 * columns * pitch + 2.0, 0.2 * rows * pitch + 0.9)  # cells hold no numbers
    axis = axes[0, 0]
    for place, method in enumerate(numbers.methods):
        top, left = (place // columns) * pitch + 1, (place % columns) * pitch
        picture[top : top + size, left : left + size] = _shares(numbers, method)
        middle = left + (size - 1) / 2
        axis.text(middle, top - 0.6, _matrix_title(method, size), ha="center", va="bottom", fontsize=10)
    shown = axis.imshow(picture[:, :-1], cmap="Blues", vmin=0, vmax=100)
    options: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks([c * pitch + i for c in range(columns) for i in range(size)], names * columns, **options)
    axis.set_yticks([r * pitch + 1 + i for r in range(rows) for i in range(size)], names * rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    _explain_matrices(numbers, figure, shown, axes)
    return figure


def _shares(numbers: Numbers, method: MethodNumbers) -> np.ndarray:
    """A method's confusion matrix in percent of the rows, classes from the rarest to the most frequent."""
    order = numbers.study.order[:MOST]
    sizes, rows = method.matrix[order].sum(1, keepdims=True), method.matrix[np.ix_(order, order)]
    return np.divide(100 * rows, sizes, out=np.zeros_like(rows), where=sizes > 0)


def _shown_names(numbers: Numbers) -> list[str]:
    return [numbers.study.classes[i] for i in numbers.study.order[:MOST]]


def _matrix_title(method: MethodNumbers, classes: int) -> str:
    return shorten(method.label, 6 + 4 * classes) + method.mark


def _explain_matrices(numbers: Numbers, figure: Figure, shown: Any, axes: np.ndarray) -> None:
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    aspect = max(30, 4 * figure.get_figheight())  # as wide as beside a few matrices
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, aspect=aspect, pad=0.015)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    watermark(numbers, figure)


def _write_cells(axis: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        weight = "bold" if row == column else "normal"
        colour = "white" if share > 55 else "#222222"
        axis.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=colour, weight=weight)


@styled
def curves(numbers: Numbers) -> Figure | None:
    """Training loss and validation mean-class accuracy by epoch: the mean over runs, the range, the chosen epochs."""
    study = numbers.study
    with_history = [m for m in study.methods if any(r.facts.get("history") for r in m.runs)]
    if not with_history:
        return None
    figure, axes = new_figure(WIDTH, 3.6, 1, 2)
    for axis, key, scale in ((axes[0, 0], "train_loss", 1.0), (axes[0, 1], "val_mean_recall", 100.0)):
        for method in with_history:
            _curve(axis, method, key, scale, looks(numbers)[method.label], _name(numbers.method(method.label)))
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid()
    axes[0, 0].set_title("training loss")
    axes[0, 1].set_title("validation mean-class accuracy, %")
    axes[0, 1].set_xlabel("epoch (markers: chosen epochs)")
    legend(figure, axes[0, 0])
    watermark(numbers, figure)
    return figure


def _curve(axis: Axes, method: MethodRuns, key: str, scale: float, look: tuple, name: str) -> None:
    colour, marker, line = look
    series = [s for r in method.runs if (s := _series(r, key))]
    if not series:
        return
    numbers = sorted(set().union(*series))
    values = scale * np.array([[s.get(n, np.nan) for n in numbers] for s in series])
    known = np.isfinite(values).any(0)
    values, epochs = values[:, known], np.array(numbers)[known] + 1  # counted from 0 in the record, from 1 for people
    axis.plot(epochs, np.nanmean(values, 0), color=colour, linestyle=line, linewidth=1.5, label=name)
    axis.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=colour, alpha=0.13, linewidth=0)
    if key == "val_mean_recall":
        chosen = [(r, int((r.facts.get("selection") or {}).get("epoch", -1))) for r in method.runs]
        marks = [(epoch + 1, scale * value) for r, epoch in chosen if (value := _series(r, key).get(epoch)) is not None]
        options: dict[str, Any] = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
        axis.plot([x for x, _ in marks], [y for _, y in marks], marker, color=colour, **options)


def _series(run: Run, key: str) -> dict[int, float]:
    history = run.facts.get("history") or []
    return {int(h["epoch"]): float(h[key]) for h in history if h.get(key) is not None and "epoch" in h}
