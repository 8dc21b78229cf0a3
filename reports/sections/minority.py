"""Section "Gains on minority classes": do the rare expressions gain, by how much, with what certainty, at what cost?

The rare expressions are the tail of the classes by training images
(:func:`fer_bench.stats.class_groups.head_middle_tail`), the frequent ones the head. All gains of the table are one
family for Holm's correction, and the sentences follow from the verdicts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.minority import HEAD, TAIL, judge_tail, tail_keys
from fer_bench.reports.facts.numbers import MIN_SEEDS, Judgement, MethodNumbers, Numbers, Verdict, recall_key
from fer_bench.reports.render.blocks import Block, Bullets, Figure, Paragraph, TableBlock
from fer_bench.reports.render.table import Column, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats import power
from fer_bench.stats.intervals import Interval

CORNERS = (
    (0.02, 0.98, "rare gain, frequent lose"),
    (0.98, 0.98, "both gain"),
    (0.02, 0.02, "both lose"),
    (0.98, 0.02, "frequent gain, rare lose"),
)
GROUPS = {TAIL: "tail (mean)", HEAD: "head (mean)"}


def build(context: Context) -> list[Block]:
    """A sentence and rows of the table for each method, and the trade-off between tail and head."""
    numbers = context.numbers
    groups = numbers.groups
    if not numbers.compared:
        return []
    if groups.reason:
        return [Paragraph(f"The classes can't be divided into rare and frequent ones: {groups.reason}.")]
    judged = judge_tail(numbers)
    lines = tuple(sentence(numbers, m, judged[m.label]) for m in numbers.compared)
    drawn = draw_tradeoff(numbers)
    alt = "Gain in recall of the frequent classes against gain in recall of the rare ones, with intervals"
    return [Bullets(lines), _table(numbers, judged), *([Figure("tradeoff", alt, drawn)] if drawn else [])]


def sentence(numbers: Numbers, method: MethodNumbers, judged: dict[str, Judgement]) -> str:
    """What the verdicts allow to be said about one method, always with its cost."""
    study = numbers.study
    name, against = phrases.code(method.label), phrases.code(str(study.reference))
    rare = phrases.listed([study.classes[i] for i in reversed(numbers.groups.members["tail"])])
    gain, verdict = method.gains[TAIL], judged[TAIL].verdict
    change, cost = f"{phrases.gain_with_interval(gain)} points", _cost(method, judged)
    if verdict is Verdict.NOT_RANKED:
        what = f"{name}{method.mark} vs {against} on the rare expressions ({rare})"
        return f"{what}: {change}. It is not ranked, so nothing is claimed. {cost}."
    if verdict is Verdict.GAIN:
        return f"{name} helps the rare expressions ({rare}): {change} over {against}. {cost}."
    if verdict is Verdict.LOSS:
        return f"{name} harms the rare expressions ({rare}): {change} against {against}. {cost}."
    if verdict is Verdict.CHANCE:
        why = answer.not_called(numbers, method, gain)
        return f"{name} vs {against} on the rare expressions ({rare}): {change}, {why}. {cost}."
    why = {
        Verdict.NOISE: "which is within noise",
        Verdict.FEW_SEEDS: f"but fewer than {MIN_SEEDS} seeds can't show training noise",
        Verdict.NOT_ADJUSTED: "which is not significant after correction for all comparisons in this section",
    }.get(verdict, "which can't be judged")
    return f"{name} is not shown to help the rare expressions ({rare}): {change} over {against}, {why}. {cost}."


def _cost(method: MethodNumbers, judged: dict[str, Judgement]) -> str:
    """How recall of the frequent classes and accuracy change."""
    head, verdict = method.gains[HEAD], judged[HEAD].verdict
    frequent = "No loss is shown for the frequent expressions"
    if head.high < 0:
        lose = "lose" if verdict is Verdict.LOSS else "seem to lose"
        frequent = f"The frequent expressions {lose}{'' if method.gains[TAIL].value > 0 else ' as well'}"
    elif verdict is Verdict.GAIN:
        frequent = "The frequent expressions gain too"
    accuracy = phrases.gain_with_interval(method.gains["accuracy"])
    return f"{frequent}: {phrases.gain_with_interval(head)} points; accuracy: {accuracy} points"


@dataclass(frozen=True)
class Row:
    """A gain of the table: a method, and the key of one of its gains."""

    method: MethodNumbers
    key: str


# -- the table -------------------------------------------------------------------------------------------------------


def _table(numbers: Numbers, judged: dict[str, dict[str, Judgement]]) -> TableBlock:
    """One row for each method and class or group."""
    study, keys = numbers.study, tail_keys(numbers)
    place = {recall_key(c): i for i, c in enumerate(study.classes)}
    family = sum(j.p is not None for of in judged.values() for j in of.values())

    def named(row: Row) -> str:
        return f"**{study.classes[place[row.key]]}**" if row.key in place else GROUPS[row.key]

    def images(role: str, row: Row) -> str:
        members = [place[row.key]] if row.key in place else numbers.groups.members[row.key.partition(":")[2]]
        return f"{sum(int(study.counts[role][i]) for i in members):,}"

    columns = [
        Column("Method", lambda r: phrases.method_name(r.method), right=False),
        Column("Recall of", named, right=False),
        Column("Gain", lambda r: phrases.gain_with_interval(r.method.gains[r.key])),
        Column("p", lambda r: phrases.p_value(judged[r.method.label][r.key].p)),
        Column("Detectable", lambda r: _detectable(numbers, r, place, max(1, family))),
        *(Column(r.capitalize(), partial(images, r)) for r in ("train", "test") if r in study.counts),
    ]
    edges = "; ".join(f"{n}: {numbers.groups.ranges[n]}" for n in numbers.groups.members)
    corrected = f"p after Holm's correction for the {family} comparisons of this table"
    caption = (
        f"Gain in points over {phrases.code(str(study.reference))} with its 95 % interval; "
        f"{corrected if family else 'no p, because nothing here is ranked'}. Detectable: the smallest true gain in "
        f"points that a study with these seeds and images would detect with probability {power.POWER:g}, given the "
        f"spread observed here (> 100: none). Groups by training images ({edges})."
    )
    rows = [Row(method, key) for method in numbers.compared for key in keys]
    return TableBlock(tabulate(columns, rows, caption), "minority", "Gains on minority classes")


def _detectable(numbers: Numbers, row: Row, place: dict[str, int], family: int) -> str:
    """The smallest gain that would be detected, for single classes and at least two seeds."""
    method = row.method
    if row.key not in place or method.pairs < 2:
        return phrases.UNKNOWN
    study, label = numbers.study, place[row.key]
    shared, *sides = study.paired(method.label, str(study.reference))
    ours, theirs = (side[:, study.labels == label] for side in sides)
    seen = ((ours >= 0) & (theirs >= 0)).all(0)
    gains = (ours == label).astype(float)[:, seen] - (theirs == label)[:, seen]
    if study.clusters is not None:
        gains = _by_cluster(gains, study.clusters[study.labels == label][seen])
    if gains.shape[1] < 2:
        return phrases.UNKNOWN
    smallest = power.detectable_gain(power.variance_components(gains), len(shared), gains.shape[1], comparisons=family)
    if not np.isfinite(smallest):
        return "> 100"
    return f"{100 * smallest:.1f}" if smallest > 0 else phrases.UNKNOWN


def _by_cluster(gains: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Mean gains [S, U] of the sampling units to which the images [S, n] belong."""
    place, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    return np.stack([np.bincount(place, of) for of in gains]) / sizes if len(place) else gains


# -- the figure ------------------------------------------------------------------------------------------------------


@figures.styled
def draw_tradeoff(numbers: Numbers) -> Drawing | None:
    """Gain of the head (x) and of the tail (y); above the diagonal the rare classes gain more than the others lose."""
    methods = [m for m in numbers.compared if all(m.gains[k].known for k in (HEAD, TAIL))]
    if not methods:
        return None
    figure, axes = figures.new_figure(5.4, 4.6)
    axis, looks = axes[0, 0], figures.looks(numbers)
    reach = 1.15 * max(_reach(m) for m in methods)
    reach = max(reach, 1.0)
    axis.axhspan(0, reach, xmax=0.5, color="#E69F00", alpha=0.07, linewidth=0)
    axis.axhspan(0, reach, xmin=0.5, color="#009E73", alpha=0.07, linewidth=0)
    axis.axhline(0, color="#888888", linewidth=0.8)
    axis.axvline(0, color="#888888", linewidth=0.8)
    axis.plot([-reach, reach], [reach, -reach], color="#BBBBBB", linewidth=0.8, linestyle=":")
    for method in methods:
        colour, marker, _ = looks[method.label]
        head, tail = (method.gains[k] for k in (HEAD, TAIL))
        axis.errorbar(
            100 * head.value, 100 * tail.value, xerr=_bars(head), yerr=_bars(tail), color=colour, marker=marker,
            markersize=6, linewidth=1.1, capsize=2.5, linestyle="none",
            label=figures.shorten(method.label) + method.mark,
        )  # fmt: skip
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    for x, y, text in CORNERS:
        across, up = ("left" if x < 0.5 else "right"), ("top" if y > 0.5 else "bottom")
        axis.text(x, y, text, transform=axis.transAxes, ha=across, va=up, fontsize=8, color="#555555")
    axis.set_xlabel(f"gain of the frequent classes over {numbers.study.reference}, points")
    axis.set_ylabel("gain of the rare classes, points")
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


def _reach(method: MethodNumbers) -> float:
    return 100 * max(abs(v) for k in (HEAD, TAIL) for v in (method.gains[k].low, method.gains[k].high))


def _bars(interval: Interval) -> Sequence[Sequence[float]]:
    """Lengths of both arms; a percentile interval may leave out the value itself, on one side."""
    return [[100 * max(0.0, interval.value - interval.low)], [100 * max(0.0, interval.high - interval.value)]]


SECTION = Section("minority", "Gains on minority classes", build)
