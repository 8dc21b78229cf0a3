"""The numbers of an ablation: what each module adds to the arm without it, and beyond an arm with as many parameters.

They are paired differences between the arms of one study, as the gains of its report are differences from its
reference. Claims have a family of their own: every comparison that a module stands for is one member of it, with the
endpoints of the study (:func:`fer_bench.reports.facts.numbers.family_with`).

A shift of the decision is not called a gain. If recall of the tail rises while its area under the ROC curve does not,
and the second reference gains as much over the reference without training, a module has done what a shift does. The
gains are compared, not the recalls: an arm that stands on a better network has more recall than the second reference,
whatever its last module does. Beside that stands how far an arm lies above the operating curve of the arm that it is
compared with (:mod:`fer_bench.reports.facts.operating_point`): what no shift of that arm's own decision gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from fer_bench.errors import LedgerError
from fer_bench.reports.facts import operating_point
from fer_bench.reports.facts.numbers import (
    Difference,
    MethodNumbers,
    Numbers,
    differences,
    family_with,
    owed_to_chance,
)
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.rise import Rise, rise_of
from fer_bench.reports.facts.runs import Training
from fer_bench.reports.facts.tail_area import area_difference, areas_of, mean_area
from fer_bench.reports.facts.verdicts import EXCLUDES_0, Family, Judgement, Verdict
from fer_bench.stats.intervals import Interval

FIELDS = ("name", "label", "to", "adds", "control")


class Finding(Enum):
    """What the primary endpoint says of a module; only RAISES and LOWERS are claims about what it contributes."""

    RAISES = "raises it"
    LOWERS = "lowers it"
    CAPACITY = "is not shown to add more than extra capacity"
    SHIFT = "shifts the decision"
    NOTHING = "is not shown to change it"


@dataclass(frozen=True)
class Arm:
    """An arm as the study's record describes it; names of other arms are empty where there are none."""

    name: str
    label: str
    to: str
    adds: str
    control: str


@dataclass(frozen=True, eq=False)
class Contrast:
    """An arm against another one.

    Attributes
    ----------
    arm, other : Arm
    beyond : bool
        The other one is the control, which has as many parameters and no such module.
    gains : dict
        Paired differences by key, as :attr:`fer_bench.reports.facts.numbers.MethodNumbers.gains`.
    judged : dict
        Judgements of the endpoints by key; empty where the arm adds no module, so that nothing is tested.
    shared : tuple of Training
        Subsets and seeds that both have.
    auroc : Interval or None
        The difference in the mean area under the ROC curve of the tail; None where it can't be computed.
    above : Interval or None
        Recall of the tail above that of the other arm, shifted to the same accuracy; None where it can't be computed.
    rise : Rise or None
        What more recall of the tail is; None where it is not shown.
    """

    arm: Arm
    other: Arm
    beyond: bool
    gains: dict[str, Interval]
    judged: dict[str, Judgement]
    shared: tuple[Training, ...]
    auroc: Interval | None
    above: Interval | None
    rise: Rise | None

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts of its endpoints by key."""
        return {key: judgement.verdict for key, judgement in self.judged.items()}


@dataclass(frozen=True, eq=False)
class Ablation:
    """Everything that the page of an ablation shows.

    Attributes
    ----------
    method : str
        The method whose card lists the arms.
    arms : tuple of Arm
        In the order of the card.
    left_out : tuple of str
        Arms of the card that were not asked for.
    numbers : Numbers
        Those of the study.
    family : Family
        What is tested here.
    contrasts : tuple of Contrast
        Those with the arms' `to`, then those with their controls.
    areas : dict
        Label to the mean area under the ROC curve of the tail, of arms and of the second reference, where it is known.
    notes : tuple of str
        What can't be compared, and why.
    """

    method: str
    arms: tuple[Arm, ...]
    left_out: tuple[str, ...]
    numbers: Numbers
    family: Family
    contrasts: tuple[Contrast, ...]
    areas: dict[str, Interval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> Arm:
        """The first arm."""
        return self.arms[0]

    @property
    def trained(self) -> list[Arm]:
        """Arms with usable runs."""
        known = {m.label for m in self.numbers.methods}
        return [arm for arm in self.arms if arm.label in known]

    @property
    def modules(self) -> list[Contrast]:
        """The contributions of modules."""
        return [c for c in self.contrasts if c.arm.adds and not c.beyond]

    def of(self, arm: Arm) -> MethodNumbers:
        """The numbers of an arm that was trained."""
        return self.numbers.method(arm.label)

    def beyond(self, contrast: Contrast) -> Contrast | None:
        """The same arm against its control, where it has one and both were trained."""
        return next((c for c in self.contrasts if c.beyond and c.arm is contrast.arm), None)

    def finding(self, contrast: Contrast) -> Finding:
        """What the verdicts on the primary endpoint allow to be said of a module."""
        verdict = contrast.verdicts.get(self.family.primary)
        if verdict is Verdict.LOSS:
            return Finding.LOWERS
        if verdict is Verdict.SHIFT:
            return Finding.SHIFT
        if verdict is not Verdict.GAIN:
            return Finding.NOTHING
        control = self.beyond(contrast)
        if control is not None and control.verdicts.get(self.family.primary) is not Verdict.GAIN:
            return Finding.CAPACITY
        return Finding.RAISES


def ablation_of(numbers: Numbers) -> Ablation | None:
    """The ablation that a study is, from its numbers; None for a study that is none.

    Raises
    ------
    LedgerError
        The study's record of it is malformed.
    """
    study = numbers.study
    if study.ablation is None:
        return None
    method, arms, left_out = _read(study.ablation)
    known = {m.label for m in study.methods}
    by_name = {arm.name: arm for arm in arms}
    wanted = [(arm, by_name[arm.to], False) for arm in arms if arm.to in by_name]
    wanted += [(arm, by_name[arm.control], True) for arm in arms if arm.control in by_name and arm.control != arm.to]
    notes = [f"The arm `{arm.name}` (`{arm.label}`) has no usable run." for arm in arms if arm.label not in known]
    notes += [
        f"The control `{arm.control}` of the arm `{arm.name}` was not trained, so its gain may be extra capacity."
        for arm in arms
        if arm.control and arm.control not in by_name
    ]
    pairs = [of for of in wanted if {of[0].label, of[1].label} <= known]
    labels = [(arm.label, other.label) for arm, other, _ in pairs]
    tested = [_key(arm, other) for arm, other, _ in pairs if arm.adds and _testable(numbers, arm, other)]
    family = family_with(study, tested)
    tail = numbers.groups.members.get("tail", ())
    areas = areas_of(study, tail, [*(arm.label for arm in arms), *filter(None, [numbers.second])])
    above = {arm: _distances(study, arm) for arm in dict.fromkeys(other for _, other, _ in pairs)}
    contrasts = []
    for (arm, other, beyond), difference in zip(pairs, differences(study, family, labels), strict=True):
        if difference is None:
            notes.append(f"`{arm.name}` and `{other.name}` share no {study.one}, so they are not compared.")
            continue
        area = area_difference(areas, arm.label, other.label, difference.shared)
        judged = _judge(numbers, family, arm, other, difference) if arm.adds else {}
        rise = rise_of(numbers, difference.gains, area)
        if rise is Rise.SHIFT:
            shifted = {k: replace(j, verdict=Verdict.SHIFT) for k, j in judged.items() if j.verdict is Verdict.GAIN}
            judged |= shifted
        shared, distance = difference.shared, above[other].get(arm.label)
        contrasts.append(Contrast(arm, other, beyond, difference.gains, judged, shared, area, distance, rise))
    means = {label: mean_area(areas, label) for label in areas}
    return Ablation(method, arms, left_out, numbers, family, tuple(contrasts), means, tuple(notes))


def _read(record: Any) -> tuple[str, tuple[Arm, ...], tuple[str, ...]]:
    """The method, its arms and the names of those left out, from a study's record, which may come from anyone."""
    wrong = LedgerError("the study's record of its ablation is malformed")
    if not isinstance(record, Mapping) or not isinstance(record.get("arms"), list) or not record["arms"]:
        raise wrong
    left_out = record.get("left_out", [])
    if not isinstance(left_out, list) or not all(isinstance(name, str) for name in left_out):
        raise wrong
    arms = []
    for arm in record["arms"]:
        if not isinstance(arm, Mapping) or not all(isinstance(arm.get(key), str) for key in FIELDS):
            raise wrong
        arms.append(Arm(**{key: " ".join(arm[key].replace("`", "'").split()) for key in FIELDS}))
    if len({arm.name for arm in arms}) < len(arms):
        raise wrong
    return str(record.get("method", "")).replace("`", "'"), tuple(arms), tuple(n.replace("`", "'") for n in left_out)


def _key(arm: Arm, other: Arm) -> str:
    """A name of a comparison that no other one has."""
    return f"{arm.name}\n{other.name}"


def _ranked(numbers: Numbers, *arms: Arm) -> bool:
    return not numbers.study.watermarks and all(numbers.method(arm.label).ranked for arm in arms)


def _testable(numbers: Numbers, arm: Arm, other: Arm) -> bool:
    """Whether something may be claimed of the difference: both sides are ranked and share two trainings or more."""
    ours, theirs = (set(numbers.method(side.label).trainings) for side in (arm, other))
    return _ranked(numbers, arm, other) and len(ours & theirs) > 1


def _judge(numbers: Numbers, family: Family, arm: Arm, other: Arm, of: Difference) -> dict[str, Judgement]:
    """Judgements of the endpoints; a difference does not count if the better side hardly classifies."""
    ranked, out = _ranked(numbers, arm, other), {}
    for key, judgement in family.judge(_key(arm, other), of.gains, of.corrected, ranked=ranked).items():
        ahead = numbers.method((arm if of.gains[key].value > 0 else other).label)
        doubtful = judgement.verdict in EXCLUDES_0 and owed_to_chance(numbers.study, ahead, key)
        out[key] = replace(judgement, verdict=Verdict.CHANCE) if doubtful else judgement
    return out


def _distances(study: StudyData, arm: Arm) -> dict[str, Interval]:
    """How far each method lies above the operating curve of an arm, by label; empty where there is no such curve."""
    shifted = replace(study, reference=arm.label, second_reference=None)
    return {} if operating_point.missing(shifted) else operating_point.operating_points(shifted).distances
