"""The reference's operating curve: recall of the tail against accuracy as its decision is shifted, without training.

Subtracting τ log π from the reference's logits, with the class shares π of its training fold, gives the decision of
another prior (Menon et al. 2021, section 4.2). As τ grows, the tail gains recall, and from some point on accuracy
falls. A method on that curve could have been had from the reference by a shift of its decision; what it has learned
lies above. The curve is drawn from test outputs, and nothing is chosen by it.

The distance of a method from the curve is its recall of the tail minus that of the reference at the τ that gives the
reference the method's accuracy: the largest such τ, with straight lines between the points of :data:`TAUS`, or a
smaller one where that has more recall of the tail (a large τ takes images of one rare class for another). A method
that is more accurate than the reference is at any τ is compared with the reference's most accurate point, and one that
is less accurate than the reference at the largest τ with that point. The distance is measured seed by seed, paired as
gains are, and its interval is the t-interval of the crossed jackknife (:mod:`fer_bench.stats.crossed_errors`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_bench.reports.facts.numbers import groups_of
from fer_bench.reports.facts.records import Run, StudyData
from fer_bench.reports.facts.runs import subsets_of
from fer_bench.stats.crossed_errors import Jackknife
from fer_bench.stats.intervals import LEVEL, Interval

TAUS = np.arange(21) / 10


@dataclass(frozen=True, eq=False)
class Curve:
    """Points of the reference at :data:`TAUS`, mean over seeds: shares, [T] each."""

    accuracy: np.ndarray
    tail: np.ndarray

    def at(self, tau: float) -> tuple[float, float]:
        """Accuracy and recall of the tail at a strength, on straight lines between the points."""
        return float(np.interp(tau, TAUS, self.accuracy)), float(np.interp(tau, TAUS, self.tail))


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """The curve, the distance of every other method from it, and the strengths that the second reference chose."""

    curve: Curve
    distances: dict[str, Interval]
    chosen: tuple[float, ...]


def missing(study: StudyData) -> str:
    """Why there is no curve, in words; empty where there is one."""
    if study.reference is None:
        return "the study has no reference"
    groups = groups_of(study)
    if groups.reason:
        return f"the classes can't be divided into rare and frequent ones: {groups.reason}"
    for run in study.method(study.reference).runs:
        if _train_counts(run) is None:
            return f"the numbers of training images of run {run.record.id} are unknown"
        if run.array("test_logits") is None:
            return f"the test logits of run {run.record.id} can't be read"
    return ""


def operating_points(study: StudyData) -> OperatingPoints:
    """Everything that the section shows; :func:`missing` must be empty."""
    reference = str(study.reference)
    units, tail = _Units.of_study(study), groups_of(study).members["tail"]
    trainings, own = study.predictions(reference)
    shifted = zip(_correct_along_curve(study, reference), own >= 0, strict=True)
    along = [_scores(units, correct, seen, tail) for correct, seen in shifted]
    distances = {}
    for method in study.methods:
        if method.label == reference:
            continue
        shared, predictions, others = study.paired(method.label, reference)
        if not shared or ((predictions >= 0) != (others >= 0)).any():
            distances[method.label] = Interval(np.nan, np.nan, np.nan)
            continue
        by_training = []
        for training, predicted in zip(shared, predictions, strict=True):
            accuracy, recall = _scores(units, predicted == study.labels, predicted >= 0, tail)
            by_training.append(recall - on_curve(*along[trainings.index(training)], accuracy))
        distances[method.label] = _interval(units, np.stack(by_training, axis=1), subsets_of(shared))
    curve = Curve(*(np.mean([of[k][0] for of in along], axis=0) for k in (0, 1)))
    return OperatingPoints(curve, distances, _chosen(study))


def on_curve(accuracy: np.ndarray, tail: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Recall of the tail [R] on curves [R, T] at the accuracies `target` [R]; beyond their ends, that of the end.

    Where more shift costs recall of the tail as well, the best recall of a smaller shift counts.
    """
    tail = np.maximum.accumulate(tail, axis=1)
    rows, reached = np.arange(len(target)), accuracy >= target[:, None]
    last = np.where(reached.any(1), reached.shape[1] - 1 - reached[:, ::-1].argmax(1), accuracy.argmax(1))
    after = np.where(reached.any(1), np.minimum(last + 1, reached.shape[1] - 1), last)
    fall = accuracy[rows, last] - accuracy[rows, after]
    part = np.divide(accuracy[rows, last] - target, fall, out=np.zeros(len(rows)), where=fall > 0)
    return tail[rows, last] + part * (tail[rows, after] - tail[rows, last])


def _interval(units: _Units, values: np.ndarray, subsets: np.ndarray) -> Interval:
    """The mean over trainings of values [1 + U, R], on all images and without each unit, with its t-interval."""
    parts = {number: values[1 + members] for number, members in enumerate(units.strata)}
    sample = Jackknife(
        values={"distance": values[0]},
        left_out={"distance": parts},
        units=tuple(map(len, units.strata)),
        effective_units={},
        units_are_images=len(units.of) == len(values) - 1,
        subsets=subsets,
    )
    estimate = sample.estimates["distance"]
    return Interval(estimate.value, *estimate.limits(LEVEL))


def _chosen(study: StudyData) -> tuple[float, ...]:
    """The strengths that the second reference chose on validation, as far as its runs tell."""
    if study.second_reference is None:
        return ()
    learned = [(r.facts.get("derived") or {}).get("learned") or {} for r in study.method(study.second_reference).runs]
    return tuple(float(of["tau"]) for of in learned if isinstance(of.get("tau"), (int, float)))


def _train_counts(run: Run) -> np.ndarray | None:
    counts = np.asarray((run.data.get("counts") or {}).get("train") or [], dtype=float)
    return counts if counts.shape == (len(run.data["classes"]),) and counts.sum() > 0 else None


def _correct_along_curve(study: StudyData, reference: str) -> np.ndarray:
    """Whether the shifted decision is right, bool [S, T, n]; images that a training has not seen count as wrong."""
    out = np.zeros((len(study.method(reference).trainings), len(TAUS), len(study.labels)), dtype=bool)
    for run, (training, images) in study.places(reference):
        counts, logits = _train_counts(run), run.array("test_logits")
        assert counts is not None
        assert logits is not None
        shares = np.where(counts > 0, counts / counts.sum(), 1.0)  # a class that was never trained is not favoured
        for t, tau in enumerate(TAUS):
            out[training, t, images] = (logits - tau * np.log(shares)).argmax(1) == run.labels
    return out


@dataclass(frozen=True, eq=False)
class _Units:
    """The sampling units of the test set.

    Attributes
    ----------
    labels, of : ndarray [n]
        The class of each image, and its unit, from 0 to U - 1.
    strata : list of ndarray
        The units of each stratum: those of one class, or all of them where some unit holds several classes.
    """

    labels: np.ndarray
    of: np.ndarray
    strata: list[np.ndarray]

    @classmethod
    def of_study(cls, study: StudyData) -> _Units:
        labels, units = study.labels, study.truth.units
        pairs = np.unique(np.stack([units, labels]), axis=1)
        everything = np.unique(units)
        pure = pairs.shape[1] == len(everything)
        return cls(labels, units, [pairs[0, pairs[1] == c] for c in np.unique(labels)] if pure else [everything])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [..., n] over all images, and over all but those of each unit: [1 + U, ...]."""
        flat = np.asarray(values, dtype=float).reshape(-1, values.shape[-1])
        size = int(self.of.max()) + 1
        of_units = np.stack([np.bincount(self.of, weights=row, minlength=size) for row in flat], axis=1)
        total = flat.sum(1)
        return np.concatenate([total[None], total - of_units]).reshape(-1, *values.shape[:-1])


def _scores(units: _Units, correct: np.ndarray, seen: np.ndarray, tail: tuple[int, ...]
            ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Accuracy and mean recall of the tail of answers [..., n], on all images and without each unit: [1 + U, ...]."""

    def share(mine: np.ndarray) -> np.ndarray:
        images = units.sums(mine).reshape(-1, *[1] * (correct.ndim - 1))
        with np.errstate(divide="ignore", invalid="ignore"):  # a class whose only unit is left out has no recall
            return units.sums(correct & mine) / images

    return share(seen), np.mean([share(seen & (units.labels == c)) for c in tail], axis=0)
