"""A study's predictions scored against other labels of the same images, and against the votes behind these.

Everything is computed on the images that have a label of one of the study's classes in both data sets, so that scores
under the two labels differ by the labels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fer_bench.record.relabelled import Relabelled
from fer_bench.reports.facts.numbers import recall_key
from fer_bench.reports.facts.records import Run, StudyData
from fer_bench.reports.facts.runs import Training, subsets_of
from fer_bench.stats.confusion import ClassRecall, Score, accuracy, mean_recall
from fer_bench.stats.crossed_errors import Jackknife, jackknife
from fer_bench.stats.image_means import jackknife_of_means
from fer_bench.stats.intervals import Interval, score_differences, score_intervals
from fer_bench.stats.sampling import paired

OWN, OTHER, VOTES = "own", "other", "votes"
EXPECTED = "expected"


@dataclass(frozen=True, eq=False)
class Lost:
    """Test images that are not scored: without a counterpart, without a label, with a class that the study lacks."""

    unmatched: int
    undecided: int
    elsewhere: int
    classes_elsewhere: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SameImages:
    """The test images of a study that both data sets label.

    Attributes
    ----------
    found : Relabelled
        The other labels.
    own, other : StudyData
        The study on these m images alone, with its own labels and with the others.
    total : int
        All test images of the study.
    lost : Lost
        The others.
    votes : ndarray [m, C], optional
        Shares of the votes for each class of the study, which sum to 1; None where there are no votes.
    votes_kept : float
        The part of all votes for these images that is for classes of the study.
    """

    found: Relabelled
    own: StudyData
    other: StudyData
    total: int
    lost: Lost
    votes: np.ndarray | None
    votes_kept: float

    @property
    def agreeing(self) -> int:
        """Images whose two labels are the same."""
        return int((self.own.labels == self.other.labels).sum())

    @cached_property
    def confusion(self) -> np.ndarray:
        """Images by own label (rows) and other label, int64 [C, C]."""
        classes = len(self.own.classes)
        return np.bincount(self.own.labels * classes + self.other.labels, minlength=classes**2).reshape(classes, -1)

    def expected(self, predictions: np.ndarray) -> np.ndarray:
        """The share of votes for the predicted class of each image, as `predictions` [..., m]; NaN for -1."""
        assert self.votes is not None
        shares = self.votes[np.arange(len(self.votes)), np.maximum(predictions, 0)]
        return np.where(predictions < 0, np.nan, shares)


@dataclass(frozen=True, eq=False)
class Rescored:
    """One method under each labelling; the keys are (labelling, score), gains are over the study's reference."""

    label: str
    scores: dict[tuple[str, str], Interval]
    gains: dict[tuple[str, str], Interval]


def same_images(study: StudyData, found: Relabelled) -> SameImages | None:
    """The test images that `found` labels with a class of the study; None where there are none."""
    place = {name: i for i, name in enumerate(study.classes)}
    known = np.array([*(place.get(name, -1) for name in found.classes), -1])  # the last for an image without a label
    rows = {fold: next(r.rows for r in study.runs if r.fold == fold) for fold in study.folds}
    pooled = np.concatenate([_positions(found, rows[fold]) for fold in study.folds])
    raw = np.where(pooled >= 0, found.labels[pooled], -1)
    labels = known[raw]
    kept = labels >= 0
    if not kept.any():
        return None
    votes, votes_kept = _shares(study, found, pooled[kept])
    if votes is not None and not votes.sum(1).all():  # an image whose label nobody voted for can't be scored by votes
        voted = votes.sum(1) > 0
        kept[np.flatnonzero(kept)[~voted]] = False
        votes, votes_kept = _shares(study, found, pooled[kept])
    elsewhere = (pooled >= 0) & (raw >= 0) & ~kept
    names = tuple(dict.fromkeys(found.classes[i] for i in np.unique(raw[elsewhere]).tolist()))
    own = _part(study, kept)
    lost = Lost(int((pooled < 0).sum()), int(((pooled >= 0) & (raw < 0)).sum()), int(elsewhere.sum()), names)
    other = replace(own, labels=labels[kept])
    return SameImages(found, own, other, len(labels), lost, votes, votes_kept)


def _positions(found: Relabelled, rows: np.ndarray) -> np.ndarray:
    """Where the rows of a store stand in `found`; -1 for those that it lacks."""
    if not len(found.rows):
        return np.full(len(rows), -1)
    near = np.minimum(np.searchsorted(found.rows, rows), len(found.rows) - 1)
    return np.where(found.rows[near] == rows, near, -1)


def _shares(study: StudyData, found: Relabelled, places: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Shares of the votes [m, C] among the study's classes, and the part of all votes that these are."""
    if not found.answers:
        return None, float("nan")
    votes = np.zeros((len(places), len(study.classes)))
    for k, answer in enumerate(found.answers):
        if answer in study.classes:
            votes[:, study.classes.index(answer)] += found.votes[places, k]
    total = votes.sum(1, keepdims=True)
    cast = found.votes[places].sum()
    return np.divide(votes, total, out=np.zeros_like(votes), where=total > 0), float(votes.sum() / max(cast, 1))


def _part(study: StudyData, kept: np.ndarray) -> StudyData:
    """The study on some of its pooled test images."""
    sizes = {fold: next(len(r.rows) for r in study.runs if r.fold == fold) for fold in study.folds}
    starts = dict(zip(study.folds, np.cumsum([0, *sizes.values()]).tolist(), strict=False))

    def cut(run: Run) -> Run:
        mine = kept[starts[run.fold] : starts[run.fold] + sizes[run.fold]]
        groups = None if run.groups is None else run.groups[mine]
        arrays = {"rows": run.rows[mine], "labels": run.labels[mine], "predictions": run.predictions[mine]}
        return replace(run, groups=groups, **arrays)

    methods = tuple(replace(m, runs=tuple(map(cut, m.runs))) for m in study.methods)
    return replace(study, methods=methods, labels=study.labels[kept])


def rescore(images: SameImages) -> list[Rescored]:
    """Every method's scores and gains under each labelling."""
    reference, out = images.own.reference, []
    for label in (m.label for m in images.own.methods):
        gains: dict[tuple[str, str], Interval] = {}
        if reference is not None and label != reference:
            shared, ours, theirs = images.own.paired(label, reference)
            if shared:
                sides = [_samples(images, shared, side) for side in paired(ours, theirs)]
                gains = _flat({k: score_differences(sides[0][k], sides[1][k]) for k in sides[0]})
        sample = _samples(images, *images.own.predictions(label))
        out.append(Rescored(label, _flat({k: score_intervals(of) for k, of in sample.items()}), gains))
    return out


def _samples(images: SameImages, trainings: Sequence[Training], predictions: np.ndarray) -> dict[str, Jackknife]:
    """What intervals are made of, for each labelling; `predictions` are [R, m]."""
    names, subsets = images.own.classes, subsets_of(trainings)
    scores: dict[str, Score] = {"accuracy": accuracy, "mean_recall": mean_recall}
    scores |= {recall_key(name): ClassRecall(i) for i, name in enumerate(names)}
    out = {k: jackknife(s.truth, predictions, scores, subsets) for k, s in ((OWN, images.own), (OTHER, images.other))}
    if images.votes is not None:
        expected = {EXPECTED: images.expected(predictions)}
        out[VOTES] = jackknife_of_means(images.other.truth, expected, subsets)
    return out


def _flat(by_labelling: dict[str, dict[str, Interval]]) -> dict[tuple[str, str], Interval]:
    return {(kind, name): interval for kind, of in by_labelling.items() for name, interval in of.items()}


def moved(images: SameImages, label: int) -> Sequence[tuple[int, int]]:
    """The other labels of the images of one class, most frequent first: (class, images)."""
    row = images.confusion[label]
    return [(int(k), int(row[k])) for k in np.argsort(-row, kind="stable") if k != label and row[k]]
