"""Section "Recall against class frequency"."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, NullLocator

from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.render.blocks import Block
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> Block | None:
    """Recall against the number of training images."""
    return context.figure("frequency", draw, "Recall against the number of training images of the class")


@figures.styled
def draw(numbers: Numbers) -> Drawing | None:
    """Recall against the number of training images, on a logarithmic axis; None where the counts are not known."""
    study = numbers.study
    if "train" not in study.counts or study.counts["train"].min() < 1:
        return None
    x = study.counts["train"][study.order].astype(float)
    figure, axes = figures.new_figure(figures.WIDTH, 4.2)
    axis = axes[0, 0]
    for method in numbers.methods:
        colour, marker, line = figures.looks(numbers)[method.label]
        y = 100 * np.array([method.recall[i].value for i in study.order])
        options: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axis.plot(x, y, linestyle=line, color=colour, linewidth=1.2, alpha=0.35)
        axis.plot(x, y, marker, color=colour, label=figures.legend_name(method), **options)
    axis.set_xscale("log")
    axis.set_xlim(x.min() / 1.15, x.max() * 1.15)
    axis.xaxis.set_major_locator(FixedLocator(_ticks(x)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(_ticks(x), [f"{t:,}" for t in _ticks(x)])
    if len(x) <= figures.MOST:
        _name_classes(axis, [study.classes[i] for i in study.order], x)
    axis.set_xlabel("training images of the class (log scale)")
    axis.set_ylabel("recall, %")
    axis.grid(axis="y")
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
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


SECTION = Section("frequency", "Recall against class frequency", build)
