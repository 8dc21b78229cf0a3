"""Section "Gains on minority classes": do the rare expressions gain, by how much, with what certainty, at what cost?

The rare expressions are the tail of the classes by training images
(:func:`fer_bench.stats.class_groups.head_middle_tail`), the frequent ones the head. The mean recall of the tail is the
primary endpoint of every method (:mod:`fer_bench.stats.hierarchy`), and the sentences follow from its verdict. Where
there is a second reference, they say whether a gain is a better ranking or a shift of the decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.minority import HEAD, TAIL, detectable, tail_keys
from fer_bench.reports.facts.numbers import BEYOND, JUDGED_BEYOND, SCORES, MethodNumbers, Numbers, recall_key
from fer_bench.reports.facts.rise import Rise, rise_in_words, rise_of
from fer_bench.reports.facts.verdicts import Judgement, Verdict
from fer_bench.reports.render.blocks import Block, Bullets, Figure, Paragraph, TableBlock
from fer_bench.reports.render.table import Column, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats import power

CORNERS = (
    (0.02, 0.98, "rare gain, frequent lose"),
    (0.98, 0.98, "both gain"),
    (0.02, 0.02, "both lose"),
    (0.98, 0.02, "frequent gain, rare lose"),
)
GROUPS = {TAIL: "tail (mean)", HEAD: "head (mean)"}


NOT_TESTED = Judgement(Verdict.NOT_RANKED)  # of what is no endpoint


def build(context: Context) -> list[Block]:
    """A sentence and rows of the table for each method, and the trade-off between tail and head."""
    numbers = context.numbers
    groups = numbers.groups
    if not numbers.compared:
        return []
    if groups.reason:
        return [Paragraph(f"The classes can't be divided into rare and frequent ones: {groups.reason}.")]
    lines = tuple(sentence(numbers, m) for m in numbers.compared)
    drawn = draw_tradeoff(numbers)
    alt = "Gain in recall of the frequent classes against gain in recall of the rare ones, with intervals"
    return [
        Bullets(lines),
        _table(numbers),
        *_beyond(numbers),
        *([Figure("tradeoff", alt, drawn)] if drawn else []),
    ]


def sentence(numbers: Numbers, method: MethodNumbers) -> str:
    """What the verdict on the tail allows to be said about one method, always with its cost."""
    study = numbers.study
    name, against = phrases.code(method.label), phrases.code(str(study.reference))
    rare = phrases.listed([study.classes[i] for i in reversed(numbers.groups.members["tail"])])
    gain, verdict = method.gains[TAIL], method.verdicts[TAIL]
    change, cost = f"{phrases.gain_with_interval(gain)} points", answer.cost(numbers, method)
    if verdict is Verdict.NOT_RANKED:
        what = f"{name}{method.mark} vs {against} on the rare expressions ({rare})"
        return f"{what}: {change}. It is not ranked, so nothing is claimed. {cost}."
    if verdict is Verdict.GAIN:
        rise = rise_of(numbers, method.gains, method.area) if numbers.second else None
        helps = "raises recall of" if rise is Rise.SHIFT else "helps"
        why = f" {rise_in_words(numbers, method.gains, method.area)}" if rise else ""
        return f"{name} {helps} the rare expressions ({rare}): {change} over {against}. {cost}.{why}"
    if verdict is Verdict.LOSS:
        return f"{name} harms the rare expressions ({rare}): {change} against {against}. {cost}."
    if verdict is Verdict.CHANCE:
        why = answer.not_called(numbers, method, TAIL)
        return f"{name} vs {against} on the rare expressions ({rare}): {change}, {why}. {cost}."
    why = {
        Verdict.NOISE: "which is within noise",
        Verdict.ONE_SEED: "but one seed does not show the variation between trainings",
        Verdict.NOT_ADJUSTED: "which is not significant after correction for the number of methods",
    }.get(verdict, "which can't be judged")
    return f"{name} is not shown to help the rare expressions ({rare}): {change} over {against}, {why}. {cost}."


@dataclass(frozen=True)
class Row:
    """A gain of the table: a method, and the key of one of its gains."""

    method: MethodNumbers
    key: str

    @property
    def judgement(self) -> Judgement:
        """The judgement of that gain; nothing is tested where it is no endpoint."""
        return self.method.judged.get(self.key, NOT_TESTED)


# -- the tables ------------------------------------------------------------------------------------------------------


def _table(numbers: Numbers) -> TableBlock:
    """One row for each method and class or group."""
    study, keys = numbers.study, tail_keys(numbers)
    place = {recall_key(c): i for i, c in enumerate(study.classes)}

    def named(row: Row) -> str:
        return f"**{study.classes[place[row.key]]}**" if row.key in place else GROUPS[row.key]

    def images(role: str, row: Row) -> str:
        members = [place[row.key]] if row.key in place else numbers.groups.members[row.key.partition(":")[2]]
        return f"{sum(int(study.counts[role][i]) for i in members):,}"

    columns = [
        Column("Method", lambda r: phrases.method_name(r.method), right=False),
        Column("Recall of", named, right=False),
        Column("Gain", lambda r: phrases.claimed(r.method.gains[r.key], r.judgement.verdict)),
        *_tests(lambda r: r.judgement),
        Column("Detectable", each(_detectable, numbers)),
        *(Column(r.capitalize(), partial(images, r)) for r in ("train", "test") if r in study.counts),
    ]
    edges = "; ".join(f"{n}: {numbers.groups.ranges[n]}" for n in numbers.groups.members)
    tested = (
        "p, adjusted p and simultaneous interval: of the family of claims (see the answer), to which the head, a cost, "
        "does not belong"
    )
    caption = (
        f"Gain in points over {phrases.code(str(study.reference))} with its unadjusted 95 % interval; bold: claimed. "
        f"{tested if numbers.family.methods else 'No p, because nothing here is tested'}. Detectable: the smallest "
        f"true gain in points that a study with these seeds and images would claim with probability {power.POWER:g}, "
        f"given the spread observed here (> 100: none). Groups by training images ({edges})."
    )
    rows = [Row(method, key) for method in numbers.compared for key in keys]
    return TableBlock(tabulate(columns, rows, caption), "minority", "Gains on minority classes")


def _tests(judgement: Callable[[Row], Judgement]) -> list[Column]:
    """Raw and adjusted p, and the simultaneous interval."""
    return [
        Column("p", lambda r: phrases.p_value(judgement(r).raw)),
        Column("Adjusted p", lambda r: phrases.p_value(judgement(r).p)),
        Column("Simultaneous interval", lambda r: phrases.limits(judgement(r).interval)),
    ]


def _detectable(numbers: Numbers, row: Row) -> str:
    """The smallest gain that would be claimed; a dash for what is not tested."""
    smallest = detectable(numbers, row.method, row.key)
    if smallest is None:
        return phrases.UNKNOWN
    return f"{100 * smallest:.1f}" if np.isfinite(smallest) else "> 100"


def _beyond(numbers: Numbers) -> list[Block]:
    """Differences from the second reference; nothing without one."""
    key = BEYOND + JUDGED_BEYOND
    rows = [Row(method, key) for method in numbers.compared if method.beyond]
    if not rows:
        return []

    def difference(name: str, row: Row) -> str:
        return phrases.claimed(row.method.beyond[name], row.judgement.verdict if name == JUDGED_BEYOND else None)

    columns = [
        Column("Method", lambda r: phrases.method_name(r.method), right=False),
        Column(SCORES[JUDGED_BEYOND].capitalize(), each(difference, JUDGED_BEYOND)),
        *_tests(lambda r: r.judgement),
        Column("Recall of the tail", each(difference, TAIL)),
        Column("Accuracy", each(difference, "accuracy")),
    ]
    second, alpha = phrases.code(str(numbers.second)), numbers.family.hierarchy.secondary_alpha
    caption = (
        f"Differences from the second reference {second} in points, with unadjusted 95 % intervals. It moves the "
        "decisions of the first reference towards rare classes without learning anything new. A method that only "
        "moves them too can gain recall of the tail, but not mean-class accuracy; so a method beats the second "
        f"reference (bold) if its mean-class accuracy is higher, tested at α = {alpha:.3g} as one of its secondary "
        "endpoints."
    )
    return [TableBlock(tabulate(columns, rows, caption), "second-reference", "Against the second reference")]


# -- the figure ------------------------------------------------------------------------------------------------------


@figures.styled
def draw_tradeoff(numbers: Numbers) -> Drawing | None:
    """Gain of the head (x) and of the tail (y); above the diagonal the rare classes gain more than the others lose."""
    methods = [m for m in numbers.compared if all(m.gains[k].known for k in (HEAD, TAIL))]
    if not methods:
        return None
    figure, axes = figures.new_figure(5.4, 4.6)
    axis = axes[0, 0]
    reach = 1.15 * max(_reach(m) for m in methods)
    reach = max(reach, 1.0)
    axis.axhspan(0, reach, xmax=0.5, color="#E69F00", alpha=0.07, linewidth=0)
    axis.axhspan(0, reach, xmin=0.5, color="#009E73", alpha=0.07, linewidth=0)
    axis.axhline(0, color="#888888", linewidth=0.8)
    axis.axvline(0, color="#888888", linewidth=0.8)
    axis.plot([-reach, reach], [reach, -reach], color="#BBBBBB", linewidth=0.8, linestyle=":")
    figures.crosses(axis, numbers, methods, lambda m: (m.gains[HEAD], m.gains[TAIL]))
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


SECTION = Section("minority", "Gains on minority classes", build)
