"""How methods do on test images with copies among the images of their own training, and on those without.

Runs of one study may have trained on different images, so what a method has seen is kept run by run: an image that a
run is not asked about is left out of its answers, as one of a missing fold is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fer_bench.record.ledger import EXACT_COPY, NEAR_COPY, OTHER_LABEL
from fer_bench.reports.facts.numbers import recall_key
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.runs import Training, subsets_of
from fer_bench.stats.confusion import ClassRecall, GroupRecall, Score, accuracy
from fer_bench.stats.crossed_errors import Jackknife, jackknife
from fer_bench.stats.intervals import Interval, score_differences, score_intervals
from fer_bench.stats.sampling import paired

COPIES = "test_copies"

KINDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "exact copy in training, same label": lambda train, val: train == EXACT_COPY,
    "exact copy in training, another label": lambda train, val: train == EXACT_COPY + OTHER_LABEL,
    "near copy in training, same label": lambda train, val: train == NEAR_COPY,
    "near copy in training, another label": lambda train, val: train == NEAR_COPY + OTHER_LABEL,
    "copy in validation alone": lambda train, val: (train == 0) & (val > 0),
    "no copy": lambda train, val: (train == 0) & (val == 0),
}
"""The parts of a test set, by what each image has among the training and the validation images of a run."""


@dataclass(frozen=True)
class Compared:
    """A score on images with a copy in training and on those with no copy, and the difference of the two.

    `images` are the numbers of images on both sides, means over runs.
    """

    images: tuple[float, float]
    seen: Interval
    unseen: Interval
    difference: Interval


@dataclass(frozen=True, eq=False)
class Seen:
    """What one method answers to images that it has seen and to others.

    Attributes
    ----------
    study : StudyData
    trainings : tuple of Training
        The subset and seed of each row.
    predictions : int64 [S, n]
        -1 where a fold is missing.
    copies : uint8 [S, n, 2]
        What each test image has among the training and the validation images of each run.
    """

    study: StudyData
    trainings: tuple[Training, ...]
    predictions: np.ndarray
    copies: np.ndarray

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """For each of :data:`KINDS` the images that belong to it, bool [S, n]."""
        train, val = np.moveaxis(self.copies, -1, 0)
        return {name: of(train, val) & (self.predictions >= 0) for name, of in KINDS.items()}

    @property
    def seen(self) -> np.ndarray:
        """Images with a copy in training, bool [S, n]."""
        return (self.copies[..., 0] > 0) & (self.predictions >= 0)

    @property
    def unseen(self) -> np.ndarray:
        """Images without any copy, bool [S, n]."""
        return self.parts["no copy"]

    def answers(self, which: np.ndarray) -> np.ndarray:
        """The predictions for some images (bool [S, n]), -1 for the others."""
        return np.where(which, self.predictions, -1)

    def accuracies(self) -> dict[str, Interval]:
        """Accuracy on all images, and on each part that has any."""
        parts = {"all": self.predictions >= 0, **{name: which for name, which in self.parts.items() if which.any()}}
        return {name: self._accuracy(which) for name, which in parts.items()}

    def _accuracy(self, which: np.ndarray) -> Interval:
        return score_intervals(self._sample(self.answers(which), {"accuracy": accuracy}))["accuracy"]

    def _sample(self, predictions: np.ndarray, scores: Mapping[str, Score]) -> Jackknife:
        return jackknife(self.study.truth, predictions, scores, subsets_of(self.trainings))

    @cached_property
    def comparison(self) -> dict[str, Compared]:
        """Accuracy, mean-class accuracy and the recall of every class on seen and unseen images, by key.

        A mean-class accuracy is one of the classes that have images on both sides; the recall of any other class is
        left out. Empty where no class has.
        """
        classes = common_classes(self.study, self.seen, self.unseen)
        if not classes:
            return {}
        scores = scores_of(self.study, classes)
        on_seen, on_unseen = (self._sample(self.answers(which), scores) for which in (self.seen, self.unseen))
        seen, unseen = score_intervals(on_seen), score_intervals(on_unseen)
        differences = score_differences(on_seen, on_unseen)
        images = {name: self._images(name) for name in scores}
        return {name: Compared(images[name], seen[name], unseen[name], differences[name]) for name in scores}

    def _images(self, name: str) -> tuple[float, float]:
        """Images behind a score on both sides, means over trainings."""
        kind, _, of = name.partition(":")
        mine = self.study.labels == self.study.classes.index(of) if kind == "recall" else True
        seen, unseen = (float((which & mine).sum(1).mean()) for which in (self.seen, self.unseen))
        return seen, unseen


def scores_of(study: StudyData, classes: tuple[int, ...]) -> dict[str, Score]:
    """Accuracy, the mean recall of some classes, and the recall of each, the rarest in training first."""
    scores: dict[str, Score] = {"accuracy": accuracy, "mean_recall": GroupRecall(classes)}
    return scores | {recall_key(study.classes[i]): ClassRecall(i) for i in study.order if i in classes}


def common_classes(study: StudyData, *sides: np.ndarray) -> tuple[int, ...]:
    """The classes that have images on every side (bool [S, n]) for every run."""
    member = np.eye(len(study.classes), dtype=np.int64)[study.labels]
    there = [(side.astype(np.int64) @ member > 0).all(0) for side in sides]
    return tuple(np.flatnonzero(np.logical_and.reduce(there)).tolist())


def seen_by(study: StudyData, label: str) -> Seen | None:
    """What a method's runs have seen; None where the record of one of them does not say."""
    trainings, predictions = study.predictions(label)
    copies = np.zeros((*predictions.shape, 2), dtype=np.uint8)
    for run, place in study.places(label):
        met = run.array(COPIES)
        if met is None or met.shape != (len(run.rows), 2) or met.dtype != np.uint8:
            return None
        copies[place] = met
    return Seen(study, trainings, predictions, copies)


def unseen_gains(study: StudyData, label: str) -> dict[str, Interval]:
    """Paired gains of a method over the reference on images of which neither of the two has seen a copy.

    Accuracy, the mean recall of the classes that have such images, and the recall of each. Empty where nothing can be
    compared.
    """
    sides = []
    shared, *answers = study.paired(label, str(study.reference))
    for name, predictions in zip((label, str(study.reference)), answers, strict=True):
        own = seen_by(study, name)
        if own is None or not shared:
            return {}
        unseen = own.unseen[[own.trainings.index(training) for training in shared]]
        sides.append(np.where(unseen, predictions, -1))
    ours, theirs = paired(*sides)
    classes = common_classes(study, ours >= 0)
    if not classes:
        return {}
    scores = scores_of(study, classes)
    samples = [jackknife(study.truth, side, scores, subsets_of(shared)) for side in (ours, theirs)]
    return score_differences(samples[0], samples[1])
