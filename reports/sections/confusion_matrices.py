"""Section "Confusion matrices"."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import MethodNumbers, Numbers
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.render import marks
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list:
    """Confusion matrices as a figure and as tables."""
    parts: list = [context.figure("confusion", draw, "Row-normalised confusion matrices")]
    classes = len(context.study.classes)
    if classes > figures.MOST:
        rarest = f"The figures show the {figures.MOST} rarest of {classes:,} classes."
        return [*parts, f"{rarest} Tables of {classes:,} by {classes:,} cells are omitted."]
    for method in context.numbers.methods:
        table = confusion_table(context.numbers, method)
        what = f"{phrases.method_name(method)}, rows in %{pooled(context.study, method)}"
        parts.append(f"{what}:")
        parts.append(TableBlock(table, marks.slug(f"confusion {method.label}"), f"Confusion matrix of {what}"))
    return parts


def pooled(study: StudyData, method: MethodNumbers) -> str:
    """What a confusion matrix is computed from, as the end of a sentence: seeds and folds."""
    number = len(method.trainings)
    several = f", mean over {phrases.count(number, study.one)}" if number > 1 else ""
    by_training = list(method.runs.folds_of.values())
    if len(study.folds) < 2:
        return several
    if any(folds != by_training[0] for folds in by_training):
        return f", all predictions of {phrases.count(len(method.runs.runs), 'run')} pooled"
    return f"{several}, {phrases.count(len(by_training[0]), 'fold')} pooled"


def confusion_table(numbers: Numbers, method: MethodNumbers) -> Table:
    """Row-normalised confusion matrix in %, classes from the rarest to the most frequent."""
    study = numbers.study
    sizes = method.matrix.sum(1)

    def cell(column: int, row: int) -> str:
        text = phrases.percent(method.matrix[row, column] / sizes[row]) if sizes[row] else phrases.UNKNOWN
        return f"**{text}**" if row == column else text

    columns = [Column("True \\ predicted", lambda i: study.classes[i], right=False)]
    columns += [Column(study.classes[j], each(cell, j)) for j in study.order]
    return tabulate(columns, study.order)


NUMBERED = 40  # classes up to which the cells of a matrix hold their numbers
WRITTEN = 8  # panels of confusion matrices up to which cells hold their number: more are an overview beside tables


@figures.styled
def draw(numbers: Numbers) -> Drawing:
    """Row-normalised confusion matrices, one panel a method, classes from the rarest to the most frequent.

    Above :data:`figures.MOST` classes their rarest are shown.
    """
    if len(numbers.methods) > WRITTEN:
        return _overview(numbers)
    names = _shown_names(numbers)
    columns = min(len(numbers.methods), 3 if len(numbers.methods) != 4 else 2)
    rows = -(-len(numbers.methods) // columns)
    side = (0.36 if len(names) <= NUMBERED else 0.15) * len(names) + 0.35  # inches
    figure, axes = figures.new_figure(
        columns * side + 1.4, rows * (side + 0.35) + 0.8, rows, columns, sharex=True, sharey=True
    )
    image: Any = None
    for axis, method in zip(axes.flat, numbers.methods, strict=False):
        shares = _shares(numbers, method)
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
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
    _explain_matrices(numbers, figure, image, axes)
    return figure


def _overview(numbers: Numbers) -> Drawing:
    """Many confusion matrices in one picture, which is drawn and laid out faster than as many axes."""
    names = _shown_names(numbers)
    size, columns = len(names), 3
    rows, pitch = -(-len(numbers.methods) // columns), len(names) + 1  # a cell apart, and above each its title
    picture = np.full((rows * pitch, columns * pitch), np.nan)
    figure, axes = figures.new_figure(0.2 * columns * pitch + 2.0, 0.2 * rows * pitch + 0.9)  # cells hold no numbers
    axis = axes[0, 0]
    for place, method in enumerate(numbers.methods):
        top, left = (place // columns) * pitch + 1, (place % columns) * pitch
        picture[top : top + size, left : left + size] = _shares(numbers, method)
        middle = left + (size - 1) / 2
        axis.text(middle, top - 0.6, _matrix_title(method, size), ha="center", va="bottom", fontsize=10)
    image = axis.imshow(picture[:, :-1], cmap="Blues", vmin=0, vmax=100)
    options: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks([c * pitch + i for c in range(columns) for i in range(size)], names * columns, **options)
    axis.set_yticks([r * pitch + 1 + i for r in range(rows) for i in range(size)], names * rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    _explain_matrices(numbers, figure, image, axes)
    return figure


def _shares(numbers: Numbers, method: MethodNumbers) -> np.ndarray:
    """A method's confusion matrix in percent of the rows, classes from the rarest to the most frequent."""
    order = numbers.study.order[: figures.MOST]
    sizes, rows = method.matrix[order].sum(1, keepdims=True), method.matrix[np.ix_(order, order)]
    return np.divide(100 * rows, sizes, out=np.zeros_like(rows), where=sizes > 0)


def _shown_names(numbers: Numbers) -> list[str]:
    return [numbers.study.classes[i] for i in numbers.study.order[: figures.MOST]]


def _matrix_title(method: MethodNumbers, classes: int) -> str:
    return figures.shorten(method.short, 6 + 4 * classes) + method.mark


def _explain_matrices(numbers: Numbers, figure: Drawing, image: Any, axes: np.ndarray) -> None:
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    aspect = max(30, 4 * figure.get_figheight())  # as wide as beside a few matrices
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=aspect, pad=0.015)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    figures.watermark(numbers, figure)


def _write_cells(axis: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        weight = "bold" if row == column else "normal"
        colour = "white" if share > 55 else "#222222"
        axis.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=colour, weight=weight)


SECTION = Section("confusion", "Confusion matrices", build)
