"""``table.csv``: the main numbers of a study in long form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_bench.reports.facts.numbers import SCORES, MethodNumbers, Numbers, group_key, recall_key
from fer_bench.reports.facts.verdicts import Judgement
from fer_bench.reports.render.table import rows_csv

CSV_HEADER = (
    *(
        "method",
        "transductive",
        "quantity",
        "train_images",
        "test_images",
        "seeds",
        "subsets",
        "percent",
        "low",
        "high",
    ),
    *("gain_points", "gain_low", "gain_high", "gain_seeds"),
    *("p", "p_adjusted", "simultaneous_low", "simultaneous_high", "verdict"),
    *("watermark", "blocked", "collapsed_seeds", "chance_p"),
)


def csv_text(numbers: Numbers) -> str:
    """Every headline number in long form: one line a method and quantity, in percent with four decimals."""
    study = numbers.study
    counts = study.counts
    rows: list[Sequence[str]] = [CSV_HEADER]
    for m in numbers.methods:
        standing = ["; ".join(m.runs.blocked), str(int(m.chance.collapsed.sum())), _chance_p(m)]
        quantities = [(recall_key(study.classes[i]), m.recall[i], i) for i in study.order]
        groups = [(key, m.scores[key], None) for key in map(group_key, numbers.groups.members)]
        for key, interval, index in [*quantities, *groups, *((n, m.scores[n], None) for n in SCORES)]:
            gain = m.gains.get(key)
            images = [
                "" if index is None or role not in counts else str(counts[role][index]) for role in ("train", "test")
            ]
            cells = [m.label, str(m.transductive).lower(), key, *images, str(len(m.seeds)), str(len(m.runs.subsets))]
            cells += [points_cell(v) for v in (interval.value, interval.low, interval.high)]
            cells += [points_cell(v) for v in (gain.value, gain.low, gain.high)] if gain else ["", "", ""]
            cells += [
                str(m.pairs) if gain else "",
                *judged_cells(m.judged.get(key)),
                "; ".join(study.watermarks),
                *standing,
            ]
            rows.append(cells)
    return rows_csv(rows)


def judged_cells(judgement: Judgement | None) -> list[str]:
    """Raw and adjusted p, the simultaneous interval and the verdict; empty cells for what is no endpoint."""
    if judgement is None:
        return [""] * 5
    of = judgement.interval
    p_values = ["" if p is None or not np.isfinite(p) else f"{p:.3g}" for p in (judgement.raw, judgement.p)]
    return [
        *p_values,
        *([points_cell(of.low), points_cell(of.high)] if of else ["", ""]),
        judgement.verdict.name.lower(),
    ]


def _chance_p(method: MethodNumbers) -> str:
    """The smaller p-value of the two tests against answers that ignore the image."""
    tests = [t.p for t in (method.chance.mean_recall, method.chance.accuracy) if t is not None]
    return f"{min(tests):.4f}" if tests else ""


def points_cell(share: float) -> str:
    """A share in percent, or a difference in points, with four decimals; empty where it is unknown."""
    return f"{100 * share + 0.0:.4f}" if np.isfinite(share) else ""
