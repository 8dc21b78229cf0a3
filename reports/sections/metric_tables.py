"""Tables of registered metrics, which the sections on further scores and on calibration share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from fer_bench.errors import PluginError
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.facts.scoring import Results
from fer_bench.reports.render.blocks import Block, TableBlock
from fer_bench.reports.render.table import Column, Table, tabulate
from fer_bench.stats.metrics import METRICS, Metric, Values

LOWER = " ↓: lower is better."


def by_metric(results: Results, names: Sequence[str]) -> tuple[dict[str, list[Values]], list[str]]:
    """Values of each method by metric; a metric without any values is left out with its reason."""
    known: dict[str, list[Values]] = {}
    reasons: dict[str, list[str]] = {}
    for name in names:
        values = [v for r in results.methods if isinstance(v := r.metrics[name], Values)]
        errors = [e for r in results.methods if isinstance(e := r.metrics[name], PluginError)]
        if not errors and any(v.values is not None for v in values):
            known[name] = values
        else:
            why = errors[0].what if errors else values[0].reason
            reasons.setdefault(why, []).append(METRICS[name].title)
    return known, [f"{', '.join(titles)}: not computed. Reason: {why}." for why, titles in reasons.items()]


def metric_blocks(numbers: Numbers, values_of: dict[str, list[Values]], name: str) -> list[Block]:
    """One table of the scores, and one for each metric of classes."""
    blocks: list[Block] = []
    scores = [n for n in values_of if values_of[n][0].metric.kind == "score"]
    if scores:
        columns = [
            Column("Score", lambda n: values_of[n][0].metric.title + _sense(values_of[n][0].metric), right=False)
        ]
        for place, method in enumerate(numbers.methods):
            columns.append(Column(phrases.method_name(method), partial(_score, values_of, place)))
        spread, lower = phrases.spread_over_seeds(numbers), any(_sense(values_of[n][0].metric) for n in scores)
        caption = f"{spread[0].upper()}{spread[1:]}; shares in %.{LOWER * lower}"
        blocks.append(TableBlock(tabulate(columns, scores, caption), name, "Scores"))
    by_class = [(n, values) for n, values in values_of.items() if n not in scores]
    return blocks + [TableBlock(_by_class(numbers, v), f"{name}-{n}", v[0].metric.title) for n, v in by_class]


def _sense(metric: Metric) -> str:
    return " ↓" if metric.better == "lower" else ""


def _score(values_of: dict[str, list[Values]], place: int, name: str) -> str:
    values = values_of[name][place]
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
        columns.append(Column(phrases.method_name(method), partial(_class_cell, of)))
    unit = ", in %" if metric.unit == "share" else ""
    caption = f"{metric.title}{_sense(metric)}: {phrases.spread_over_seeds(numbers)}{unit}."
    return tabulate(columns, study.order, caption)


def _class_cell(values: Values, index: int) -> str:
    return phrases.UNKNOWN if values.values is None else _mean(values.values[:, index], values.metric)
