"""Numbers and judgements in words. A sentence never says more than its interval does."""

from __future__ import annotations

import numpy as np

from fer_bench.reports.numbers import SCORES, MethodNumbers, Numbers, Verdict
from fer_bench.reports.records import StudyData
from fer_bench.stats import Interval

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


def describe_class(study: StudyData, index: int) -> str:
    """What a reader must know of a class before believing a number about it."""
    counts = study.counts
    train = f"{counts['train'][index]:,} training and " if "train" in counts else ""
    return f"*{study.classes[index]}* ({train}{count(int(counts['test'][index]), 'test image')})"


def summary(numbers: Numbers) -> str:
    """The study's answer in one or two sentences."""
    study = numbers.study
    rarest = describe_class(study, study.order[0])
    if study.watermarks:
        return "These numbers are not a fair estimate (see above), so no gain is claimed."
    if study.reference is None:
        return f"Recall of {len(study.methods)} method{'s' * (len(study.methods) != 1)}; no reference, so no gains."
    if study.method(study.reference).transductive:
        return f"The reference {code(study.reference)} ⚠ reads other test images, so no gain is claimed."
    ranked = [m for m in numbers.compared if not m.transductive]
    if not ranked:
        return f"No method can be compared with {code(study.reference)}."
    aims = (f"recall of the rarest class, {rarest}", "mean-class accuracy")
    named = zip(numbers.headline, aims, strict=True)
    return " ".join(_count_claims(ranked, name, aim, study.reference) for name, aim in named)


def _count_claims(ranked: list[MethodNumbers], name: str, aim: str, reference: str) -> str:
    won = [code(m.label) for m in ranked if m.verdicts[name] is Verdict.GAIN]
    lost = [code(m.label) for m in ranked if m.verdicts[name] is Verdict.LOSS]
    if len(ranked) == 1:
        did = "gains over" if won else "loses to" if lost else "is not shown to gain over"
        return f"{code(ranked[0].label)} {did} {code(reference)} in {aim}."
    of = f"of {len(ranked)} methods"
    head = f"{len(won)} {of} ({listed(won)}) gain" if won else f"None {of} is shown to gain"
    if len(won) == 1:
        head += "s"
    tail = f"; {listed(lost)} lose{'s' * (len(lost) == 1)}" if lost else ""
    return f"{head} over {code(reference)} in {aim}{tail}."


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


def interval_of(numbers: Numbers) -> str:
    """What the intervals of a report cover; a single seed says nothing of other trainings."""
    if all(len(m.seeds) == 1 for m in numbers.methods):
        return "its 95 % interval over images (one training says nothing of others)"
    return "its 95 % interval over seeds and images"


def headline(numbers: Numbers, method: MethodNumbers) -> str:
    """One method's gains on the rarest class and on the mean over classes, each with its interval and verdict."""
    study = numbers.study
    rarest, mean = numbers.headline
    seeds = count(method.pairs, "shared seed")
    parts = [
        f"{what} {gain_with_interval(method.gains[name])} points, {_said(numbers, method, name)}"
        for what, name in ((f"recall of {study.classes[study.order[0]]}", rarest), (SCORES["mean_recall"], mean))
    ]
    mark = "⚠ " if method.transductive else ""
    return f"{mark}**{code(method.label)}** against {code(study.reference or '')} ({seeds}): " + "; ".join(parts) + "."


def _said(numbers: Numbers, method: MethodNumbers, name: str) -> str:
    verdict = method.verdicts[name]
    if verdict is not Verdict.NOT_RANKED:
        return verdict.value
    if numbers.study.watermarks:
        return "no claim under a watermarked protocol"
    if method.transductive:
        return "not ranked: its predictions depend on the other test images"
    return "not ranked: the reference's predictions depend on the other test images"
