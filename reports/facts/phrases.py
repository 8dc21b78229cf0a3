"""Numbers and judgements in words. A sentence never says more than its interval does."""

from __future__ import annotations

import numpy as np

from fer_bench.reports.facts.numbers import MethodNumbers, Numbers
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.stats.intervals import Interval

UNKNOWN = "–"


def percent(share: float) -> str:
    """A share as percent with one decimal: 0.625 -> "62.5"."""
    return f"{100 * share + 0.0:.1f}" if np.isfinite(share) else UNKNOWN


def points(share: float) -> str:
    """A difference as signed percentage points with one decimal: -0.031 -> "−3.1"."""
    if not np.isfinite(share):
        return UNKNOWN
    text = f"{abs(100 * share):.1f}"
    return text if text == "0.0" else ("+" if share > 0 else "−") + text


def share_with_interval(interval: Interval) -> str:
    """ "62.5 [49.2, 74.1]"."""
    if not np.isfinite(interval.value):
        return UNKNOWN
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"


def gain_with_interval(interval: Interval) -> str:
    """ "+4.2 [+1.0, +7.5]"."""
    if not np.isfinite(interval.value):
        return UNKNOWN
    return f"{points(interval.value)} [{points(interval.low)}, {points(interval.high)}]"


def mean_and_spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds (one less than their number in the denominator); one seed has no spread."""
    values = values[np.isfinite(values)]
    if not len(values):
        return UNKNOWN
    spread = f"{100 * values.std(ddof=1):.1f}" if len(values) > 1 else UNKNOWN
    return f"{percent(values.mean())} ± {spread}"


def p_value(p: float | None) -> str:
    """ "0.031", "< 0.001"; a dash where there is none."""
    if p is None or not np.isfinite(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """ "1 seed", "5 seeds"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(items: list[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def span(values: list[int]) -> str:
    """Integers with runs shortened: [0, 1, 2, 5] -> "0–2, 5"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)


def code(label: str) -> str:
    """A label as Markdown code."""
    return f"`{label}`"


def method_name(method: MethodNumbers | MethodRuns) -> str:
    """A method's label as tables show it, with the signs that stand beside it."""
    return code(method.label) + method.mark


def describe_class(study: StudyData, index: int) -> str:
    """What a reader must know of a class before believing a number about it."""
    counts = study.counts
    train = f"{counts['train'][index]:,} training and " if "train" in counts else ""
    return f"*{study.classes[index]}* ({train}{count(int(counts['test'][index]), 'test image')})"


def sampling(study: StudyData) -> str:
    """What intervals draw anew where it is not single images; empty where it is."""
    if study.clusters is None:
        return ""
    drawn, images = len(np.unique(study.clusters)), len(study.clusters)
    if study.grouped:
        what = "people (or sequences, where nobody is named), all images of one together"
    else:
        what = "distinct images, all folds that test one together"
    return f"Intervals and tests draw {drawn:,} {what}, not {images:,} single images."


def one_seed_each(numbers: Numbers) -> bool:
    """Whether every method was trained once, so that nothing is a mean over trainings."""
    return all(len(m.seeds) == 1 for m in numbers.methods)


def interval_of(numbers: Numbers) -> str:
    """What the intervals of a report cover; a single seed says nothing of other trainings."""
    if one_seed_each(numbers):
        return "its 95 % interval over images, which says nothing of other trainings"
    return "its 95 % interval over seeds and images"


def mean_over_seeds(numbers: Numbers) -> str:
    """What the numbers of a report are: means over seeds, or those of one training."""
    return "of one training" if one_seed_each(numbers) else "mean over seeds"


def spread_over_seeds(numbers: Numbers) -> str:
    """What "62.5 ± 1.2" means where trainings are several, and "62.5 ± –" where there is one."""
    if one_seed_each(numbers):
        return "one training a method, so no spread (–)"
    one = " (– for a single one)" if any(len(m.seeds) == 1 for m in numbers.methods) else ""
    return f"mean ± standard deviation over seeds{one}"
