"""Sections on what recall and accuracy do not tell: other scores, calibration, and what the last epochs are worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from fer_bench.errors import PluginError
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import MethodNumbers, Numbers
from fer_bench.reports.facts.scoring import Results
from fer_bench.reports.render.blocks import Block, Bullets, Figure, TableBlock
from fer_bench.reports.render.table import Column, Table, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.tables import title
from fer_bench.stats import probabilities
from fer_bench.stats.metrics import METRICS, Metric, Values

CALIBRATION = ("ece", "classwise_ece", "brier", "class_ece")
LOWER = " ↓: the lower the better."
LAST = 0.25  # share of the epochs, from the end, over which a score is watched
FEWEST = 3


def further_section(numbers: Numbers, results: Results) -> list[Block]:
    """Every registered metric that is no calibration and stands nowhere else; reasons for those that can't be had."""
    found, reasons = _by_metric(results, [n for n in results.metrics if n not in CALIBRATION])
    blocks = _tables(numbers, found, "further")
    classes, members = numbers.study.classes, numbers.groups.members
    if members:
        told = "; ".join(f"{name}: {phrases.listed([classes[i] for i in of])}" for name, of in members.items())
        blocks.append(Bullets((f"Groups of classes by training images: {told}.",)))
    return [*blocks, Bullets((*reasons, *results.broken))]


def calibration_section(numbers: Numbers, results: Results) -> list[Block]:
    """Calibration errors, and a reliability diagram."""
    found, reasons = _by_metric(results, [n for n in results.metrics if n in CALIBRATION])
    drawn = reliability(numbers, [r.diagram for r in results.methods])
    alt = "Share of right answers against confidence, for every method"
    figure: list[Block] = [Figure("reliability", alt, drawn)] if drawn else []
    return [*_tables(numbers, found, "calibration"), *figure, Bullets(tuple(reasons))]


def _by_metric(results: Results, names: Sequence[str]) -> tuple[dict[str, list[Values]], list[str]]:
    """Values of each method by metric; a metric that no method has is left out with its reason."""
    found: dict[str, list[Values]] = {}
    reasons: dict[str, list[str]] = {}
    for name in names:
        values = [v for r in results.methods if isinstance(v := r.metrics[name], Values)]
        errors = [e for r in results.methods if isinstance(e := r.metrics[name], PluginError)]
        if not errors and any(v.values is not None for v in values):
            found[name] = values
        else:
            why = errors[0].what if errors else values[0].reason
            reasons.setdefault(why, []).append(METRICS[name].title)
    return found, [f"{', '.join(titles)}: not given, {why}." for why, titles in reasons.items()]


def _tables(numbers: Numbers, found: dict[str, list[Values]], name: str) -> list[Block]:
    """One table of the scores, and one for each metric of classes."""
    blocks: list[Block] = []
    scores = [n for n in found if found[n][0].metric.kind == "score"]
    if scores:
        columns = [Column("Score", lambda n: found[n][0].metric.title + _sense(found[n][0].metric), right=False)]
        for place, method in enumerate(numbers.methods):
            columns.append(Column(title(method), partial(_score, found, place)))
        told, lower = phrases.spread_over_seeds(numbers), any(_sense(found[n][0].metric) for n in scores)
        caption = f"{told[0].upper()}{told[1:]}; shares in %.{LOWER * lower}"
        blocks.append(TableBlock(tabulate(columns, scores, caption), name, "Scores"))
    by_class = [(n, values) for n, values in found.items() if n not in scores]
    return blocks + [TableBlock(_by_class(numbers, v), f"{name}-{n}", v[0].metric.title) for n, v in by_class]


def _sense(metric: Metric) -> str:
    return " ↓" if metric.better == "lower" else ""


def _score(found: dict[str, list[Values]], place: int, name: str) -> str:
    values = found[name][place]
    return phrases.UNKNOWN if values.values is None else _mean(values.values, values.metric)


def _mean(values: np.ndarray, metric: Metric) -> str:
    values = values[np.isfinite(values)]
    if metric.unit == "share":
        return phrases.mean_and_spread(values)
    if not len(values):
        return phrases.UNKNOWN
    return f"{values.mean():.3f} ± " + (f"{values.std(ddof=1):.3f}" if len(values) > 1 else phrases.UNKNOWN)


def _by_class(numbers: Numbers, values: list[Values]) -> Table:
    study, metric = numbers.study, values[0].metric
    columns = [Column("Class", lambda i: study.classes[i], right=False)]
    for method, of in zip(numbers.methods, values, strict=True):
        columns.append(Column(title(method), partial(_class_cell, of)))
    unit = ", in %" if metric.unit == "share" else ""
    caption = f"{metric.title}{_sense(metric)}: {phrases.spread_over_seeds(numbers)}{unit}."
    return tabulate(columns, study.order, caption)


def _class_cell(values: Values, index: int) -> str:
    return phrases.UNKNOWN if values.values is None else _mean(values.values[:, index], values.metric)


@figures.styled
def reliability(numbers: Numbers, found: Sequence[probabilities.Reliability | None]) -> Drawing | None:
    """Share of right answers in bins of confidence, all seeds of a method together; below the line: too sure."""
    known = [(m, r) for m, r in zip(numbers.methods, found, strict=True) if r is not None]
    if not known:
        return None
    figure, axes = figures.new_figure(4.8, 4.4)
    axis, looks = axes[0, 0], figures.looks(numbers)
    axis.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.9, linestyle=":")
    for method, bins in known:
        full = bins.counts >= 10
        colour, marker, line = looks[method.label]
        axis.plot(
            100 * bins.confidence[full], 100 * bins.frequency[full], color=colour, marker=marker, linestyle=line,
            markersize=4, label=figures.shorten(method.label) + method.mark,
        )  # fmt: skip
    axis.set_xlabel("confidence, % (bins of 10 answers and more)")
    axis.set_ylabel("answers that are right, %")
    axis.set_aspect("equal")
    axis.grid()
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


# -- single-epoch luck -----------------------------------------------------------------------------------------------


def luck_table(numbers: Numbers) -> Table | None:
    """How far test scores move between the last epochs of one training; None where no predictions were kept."""
    rows = [m for m in numbers.methods if _last_scores(m, "mean_recall")]
    columns = [Column("Method", title, right=False)]
    columns.append(Column("Epochs watched", _watched))
    for name, heading in (("mean_recall", "Mean-class accuracy"), ("accuracy", "Accuracy")):
        columns.append(Column(f"{heading}: sd between epochs", partial(_luck, name, "sd")))
        columns.append(Column("range", partial(_luck, name, "range")))
    caption = (
        f"Test scores of the last {100 * LAST:g} % of the epochs (at least {FEWEST}) of each training: standard "
        "deviation and range, in points, mean over runs. A gain of this size can be one lucky epoch."
    )
    return tabulate(columns, rows, caption) if rows else None


def _last_scores(method: MethodNumbers, name: str) -> list[np.ndarray]:
    """A score on the test after each of the last epochs, of every run of which enough were kept."""
    each = [scores[name] for scores in method.epochs]
    return [s[-max(FEWEST, round(LAST * len(s))) :] for s in each if len(s) >= FEWEST]


def _watched(method: MethodNumbers) -> str:
    return phrases.span(sorted({len(s) for s in _last_scores(method, "accuracy")}))


def _luck(name: str, what: str, method: MethodNumbers) -> str:
    scores = _last_scores(method, name)
    spread = [s.std(ddof=1) if what == "sd" else np.ptp(s) for s in scores]
    return f"{100 * np.mean(spread):.2f}" if spread else phrases.UNKNOWN
