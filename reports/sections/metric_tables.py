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
from fer_bench.stats.metrics import COLUMNS, Values
from fer_bench.stats.metrics import Column as Metric

LOWER = " ↓: lower is better."


def by_column(results: Results, names: Sequence[str]) -> tuple[dict[str, list[Values]], list[str]]:
    """Values of each method by column; a column without any values is left out with its reason."""
    known: dict[str, list[Values]] = {}
    reasons: dict[str, list[str]] = {}
    for name in names:
        values = [v for r in results.methods if isinstance(v := r.columns[name], Values)]
        errors = [e for r in results.methods if isinstance(e := r.columns[name], PluginError)]
        if not errors and any(v.values is not None for v in values):
            known[name] = values
        else:
            why = errors[0].what if errors else values[0].reason
            reasons.setdefault(why, []).append(COLUMNS[name].title)
    return known, [f"{', '.join(titles)}: not computed. Reason: {why}." for why, titles in reasons.items()]


def metric_blocks(numbers: Numbers, columns_of: dict[str, list[Values]], name: str) -> list[Block]:
    """One table of the scores, and one for each metric of classes."""
    blocks: list[Block] = []
    scores = [n for n in columns_of if columns_of[n][0].column.kind == "score"]
    if scores:
        columns = [
            Column("Score", lambda n: columns_of[n][0].column.title + _sense(columns_of[n][0].column), right=False)
        ]
        for place, method in enumerate(numbers.methods):
            columns.append(Column(phrases.method_name(method), partial(_score, columns_of, place)))
        spread, lower = phrases.spread_over_seeds(numbers), any(_sense(columns_of[n][0].column) for n in scores)
        caption = f"{spread[0].upper()}{spread[1:]}; shares in %.{LOWER * lower}"
        blocks.append(TableBlock(tabulate(columns, scores, caption), name, "Scores"))
    by_class = [(n, values) for n, values in columns_of.items() if n not in scores]
    return blocks + [TableBlock(_by_class(numbers, v), f"{name}-{n}", v[0].column.title) for n, v in by_class]


def _sense(column: Metric) -> str:
    return " ↓" if column.better == "lower" else ""


def _score(columns_of: dict[str, list[Values]], place: int, name: str) -> str:
    values = columns_of[name][place]
    return phrases.UNKNOWN if values.values is None else _mean(values.values, values.column)


def _mean(values: np.ndarray, column: Metric) -> str:
    values = values[np.isfinite(values)]
    if column.unit == "share":
        return phrases.mean_and_spread(values)
    if not len(values):
        return phrases.UNKNOWN
    return f"{values.mean():.3f} ± " + (f"{values.std(ddof=1):.3f}" if len(values) > 1 else phrases.UNKNOWN)


def _by_class(numbers: Numbers, values: list[Values]) -> Table:
    study, column = numbers.study, values[0].column
    columns = [Column("Class", lambda i: study.classes[i], right=False)]
    for method, of in zip(numbers.methods, values, strict=True):
        columns.append(Column(phrases.method_name(method), partial(_class_cell, of)))
    unit = ", in %" if column.unit == "share" else ""
    caption = f"{column.title}{_sense(column)}: {phrases.spread_over_seeds(numbers)}{unit}."
    return tabulate(columns, study.order, caption)


def _class_cell(values: Values, index: int) -> str:
    return phrases.UNKNOWN if values.values is None else _mean(values.values[:, index], values.column)
