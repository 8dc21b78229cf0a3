"""Imbalance-response curves: how recall falls with the ratio of the training set, method by method.

They are read from studies of one data set that differ in the imbalance profile alone. The groups of classes are those
of the most imbalanced study, so that every point of a curve is about the same classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fer_bench.base.files import canonical_json
from fer_bench.errors import LedgerError
from fer_bench.record.ledger import Ledger
from fer_bench.reports.facts.numbers import groups_of
from fer_bench.reports.facts.records import MethodRuns, StudyData, readable
from fer_bench.reports.facts.runs import Training, subsets_of
from fer_bench.stats.chance import Chance, against_chance
from fer_bench.stats.class_groups import Groups
from fer_bench.stats.confusion import SCORES, GroupRecall, Score
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import Interval, score_differences, score_intervals
from fer_bench.stats.sampling import paired

MEAN, ACCURACY = "mean", "accuracy"


@dataclass(frozen=True, eq=False)
class Point:
    """One study on the curves: its training counts, and of each method the recall of each group."""

    study: StudyData
    profile: str
    ratio: float
    images: int
    recall: Mapping[str, Mapping[str, Interval]]  # method -> group -> interval
    gain: Mapping[str, Mapping[str, Interval]]  # method -> group -> paired gain over the reference
    shared: Mapping[str, tuple[Training, ...]]  # method -> subsets and seeds shared with the reference
    chance: Mapping[str, Chance]  # method -> its answers against those that ignore the image

    def sound(self, label: str) -> bool:
        """Whether a method is ranked here, and shown to classify."""
        return self.study.method(label).ranked and not self.chance[label].doubtful and not self.study.watermarks


@dataclass(frozen=True)
class Crossing:
    """Where a method's curve crosses the reference's: between two ratios, at the interpolated one."""

    method: str
    group: str
    below: float
    above: float
    at: float
    certain: bool  # the gain's interval excludes 0 on both sides
    pairs: int  # shared trainings, on the side that has fewer
    sound: bool  # on both sides either method is ranked and is shown to classify


@dataclass(frozen=True, eq=False)
class Response:
    """Everything a page on imbalance response shows; points by rising ratio."""

    points: tuple[Point, ...]
    methods: tuple[str, ...]
    reference: str | None
    groups: Groups
    notes: tuple[str, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the groups that are drawn, and "mean" for the mean over all classes."""
        return (*self.groups.members, MEAN)

    @property
    def tabled(self) -> tuple[str, ...]:
        """What is drawn, and accuracy, in which gains are often paid."""
        return (*self.measures, ACCURACY)

    def of(self, label: str) -> list[MethodRuns]:
        """The runs of a method at every point."""
        return [p.study.method(label) for p in self.points]

    def mark(self, label: str) -> str:
        """The signs beside a method that is not ranked, at one point at least."""
        runs = self.of(label)
        return " ⚠" * any(m.transductive for m in runs) + " ⊘" * any(m.blocked for m in runs)

    def crossings(self) -> list[Crossing]:
        """Every change of the sign of a gain between neighbouring ratios."""
        crossings = []
        for method in self.methods:
            for group in self.measures:
                known = [p for p in self.points if group in p.gain.get(method, {})]
                for left, right in pairwise(known):
                    a, b = left.gain[method][group], right.gain[method][group]
                    if a.value * b.value < 0:
                        share = a.value / (a.value - b.value)
                        at = np.exp(np.log(left.ratio) + share * np.log(right.ratio / left.ratio))
                        certain = not (a.covers(0.0) or b.covers(0.0))
                        pairs = min(len(p.shared[method]) for p in (left, right))
                        sound = all(p.sound(m) for p in (left, right) for m in (method, str(self.reference)))
                        crossings.append(
                            Crossing(method, group, left.ratio, right.ratio, float(at), certain, pairs, sound)
                        )
        return crossings


def load_response(ledger: Ledger, studies: Sequence[Mapping[str, Any] | str]) -> Response:
    """Read studies, given or named, that differ in their imbalance profile.

    Raises
    ------
    LedgerError
        Fewer than two ratios are left.
    """
    loaded, left_out = readable(ledger, studies)
    uncounted = [s for s in loaded if "train" not in s.counts]
    left_out += [
        f"Study `{s.name}` does not record its training images, so it has no ratio and is left out." for s in uncounted
    ]
    loaded = [s for s in loaded if s not in uncounted]
    notes = [*left_out, *(f"{s.name}: {note}" for s in loaded for note in s.notes)]
    if not loaded:
        raise _too_few(ledger, loaded, left_out)
    first = loaded[0]
    alike: list[StudyData] = []
    for study in loaded:
        odd = [what for what, key in SAME.items() if key(study) != key(first)]
        if odd:
            notes.append(
                f"Study `{study.name}` differs from `{first.name}` in its {' and '.join(odd)} and is left out."
            )
        else:
            alike.append(study)
    alike.sort(key=lambda s: (_ratio(s), s.name))
    kept = {_profile(s): s for s in reversed(alike)}
    if len(kept) < 2:
        raise _too_few(ledger, loaded, left_out)
    ordered = sorted(kept.values(), key=lambda s: (_ratio(s), s.name))
    groups = groups_of(ordered[-1])
    methods = tuple(m.label for m in ordered[0].methods if all(m.label in _labels(s) for s in ordered))
    for study in ordered:
        notes += [
            f"`{label}` is not in every study and is left out." for label in _labels(study) if label not in methods
        ]
    reference = first.reference if first.reference in methods else None
    points = tuple(_point(s, methods, reference, groups) for s in ordered)
    return Response(points, methods, reference, groups, tuple(dict.fromkeys(notes)))


def _too_few(ledger: Ledger, loaded: Sequence[StudyData], left_out: Sequence[str]) -> LedgerError:
    return LedgerError(
        "imbalance response needs studies of at least two ratios",
        where=", ".join(f"{s.name}: {_profile(s)}" for s in loaded) or str(ledger.root),
        hint=" ".join(left_out) or None,
        next="fer-bench run METHOD... --dataset D --imbalance exp:20 --imbalance exp:50 --imbalance exp:100",
    )


SAME = {
    "data set": lambda s: s.dataset,
    "classes": lambda s: s.classes,
    "data": lambda s: s.fingerprint,
    "protocol": lambda s: s.protocol.get("name"),
    "test images": lambda s: s.labels.tobytes(),
    "settings": lambda s: canonical_json(_settings(s)),
}


def _settings(study: StudyData) -> list[Any]:
    """What all runs must share but the profile: recipe, backbone, selection; seeds and subsets may differ."""
    kept = ("backbone", "pretrained", "selection", "dataset_params")
    return sorted({canonical_json([{k: r.spec.get(k) for k in kept}, r.spec.get("recipe")]) for r in study.runs})


def _labels(study: StudyData) -> list[str]:
    return [m.label for m in study.methods]


def _profile(study: StudyData) -> str:
    return str(study.runs[0].spec.get("profile") or "natural")


def _ratio(study: StudyData) -> float:
    counts = study.counts["train"]
    return float(counts.max() / max(1, counts.min()))


def _point(study: StudyData, methods: tuple[str, ...], reference: str | None, groups: Groups) -> Point:
    scores: dict[str, Score] = {name: GroupRecall(members) for name, members in groups.members.items()}
    scores[MEAN] = GroupRecall(tuple(range(len(study.classes))))
    scores[ACCURACY] = SCORES["accuracy"]
    recall, gain, in_common, chance = {}, {}, {}, {}
    for label in methods:
        trainings, predictions = study.predictions(label)
        sample = jackknife(study.truth, predictions, scores | SCORES, subsets_of(trainings))
        intervals = score_intervals(sample)
        recall[label] = {name: intervals[name] for name in scores}
        chance[label] = against_chance(sample, study.truth, predictions)
        if reference in (None, label):
            continue
        shared, ours, theirs = study.paired(label, str(reference))
        if shared:
            in_common[label] = shared
            both = [jackknife(study.truth, side, scores, subsets_of(shared)) for side in paired(ours, theirs)]
            gain[label] = score_differences(both[0], both[1])
    counts = study.counts["train"]
    return Point(study, _profile(study), _ratio(study), int(counts.sum()), recall, gain, in_common, chance)
