"""Section "Learning curves"."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.facts.records import MethodRuns, Run
from fer_bench.reports.render.blocks import Block
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> Block | str:
    """Learning curves on the validation set."""
    alt = "Training loss and validation mean-class accuracy by epoch"
    return context.figure("curves", draw, alt) or "No run kept its training history."


@figures.styled
def draw(numbers: Numbers) -> Drawing | None:
    """Training loss and validation mean-class accuracy by epoch: the mean over runs, the range, the selected epochs."""
    study = numbers.study
    with_history = [m for m in study.methods if any(r.facts.get("history") for r in m.runs)]
    if not with_history:
        return None
    figure, axes = figures.new_figure(figures.WIDTH, 3.6, 1, 2)
    for axis, key, scale in ((axes[0, 0], "train_loss", 1.0), (axes[0, 1], "val_mean_recall", 100.0)):
        for method in with_history:
            _curve(
                axis,
                method,
                key,
                scale,
                figures.looks(numbers)[method.label],
                figures.legend_name(numbers.method(method.label)),
            )
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid()
    axes[0, 0].set_title("training loss")
    axes[0, 1].set_title("validation mean-class accuracy, %")
    axes[0, 1].set_xlabel("epoch (markers: selected epochs)")
    figures.legend(figure, axes[0, 0])
    figures.watermark(numbers, figure)
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


SECTION = Section("curves", "Learning curves", build)
