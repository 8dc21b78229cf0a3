"""Confusion matrices, and every score that can be read off them.

All functions take one matrix [C, C] or a stack of any shape [..., C, C]: rows are true classes, columns predicted ones.
So the same function scores one epoch, all seeds of a method, or two thousand bootstrap draws. Nearly every score needs
three counts per class instead of C: its images, its predictions, and how many of those are correct. Code that handles
many matrices keeps only these :class:`Margins`, and the scores take either form.

Scores are shares from 0 to 1. The recall of a class without images is NaN and is left out of means, unless a function
says otherwise. This module needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Margins:
    """The counts per class that scores need of confusion matrices [..., C, C]; three arrays [..., C].

    Attributes
    ----------
    correct : ndarray
        Correctly classified images of each class: the diagonals.
    support : ndarray
        Images of each class: the row sums.
    predicted : ndarray
        Images assigned to each class: the column sums.
    """

    correct: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, matrices: Stack) -> Margins:
        """The margins of matrices; margins are returned as they are."""
        if isinstance(matrices, Margins):
            return matrices
        return cls(np.diagonal(matrices, axis1=-2, axis2=-1), matrices.sum(-1), matrices.sum(-2))

    @classmethod
    def count(cls, labels: np.ndarray, predictions: np.ndarray, classes: int) -> Margins:
        """The margins [R, C] of `predictions` [R, n]; an image predicted -1 (not seen by a run) is left out."""
        out = cls(*np.zeros((3, len(predictions), classes)))
        for run, predicted in enumerate(predictions):
            seen = predicted >= 0
            truth, answer = labels[seen], predicted[seen]
            out.correct[run] = np.bincount(truth[truth == answer], minlength=classes)
            out.support[run] = np.bincount(truth, minlength=classes)
            out.predicted[run] = np.bincount(answer, minlength=classes)
        return out

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Margins:
        """Apply a function to each of the three arrays."""
        return Margins(change(self.correct), change(self.support), change(self.predicted))

    def repeat(self, times: int) -> Margins:
        """Copies along a new first axis."""
        return self.map(lambda array: np.repeat(array[None], times, axis=0))


Stack = np.ndarray | Margins
Score = Callable[[Stack], np.ndarray]
"""A function from matrices [..., C, C], or their margins, to numbers [...]."""


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrices, int64 [..., C, C], of `predictions` [..., n]: [n] gives one, [R, n] gives R of them.

    An image predicted -1 (not seen by a run) is left out.
    """
    predictions = np.asarray(predictions)
    runs = predictions.shape[:-1]
    out = np.empty((*runs, classes, classes), dtype=np.int64)
    for run in np.ndindex(runs):  # one run at a time stays in the processor's cache
        out[run] = _count(labels, predictions[run], classes)
    return out


def mean_confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Mean [C, C] of the R matrices of :func:`confusion_matrix`, one of which is in memory at a time."""
    total = np.zeros((classes, classes))
    for predicted in predictions:
        total += _count(labels, predicted, classes)
    return total / len(predictions)


def _count(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    cell = np.asarray(labels, dtype=np.int64) * classes + predicted
    seen = predicted >= 0
    if not seen.all():
        cell = cell[seen]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """`top` / `bottom`, NaN where `bottom` is not positive."""
    # The result lies in memory as `bottom` does: a bootstrap's draws are the inner axis there, not the last.
    kind = np.result_type(top, bottom, np.float32)
    return np.divide(top, bottom, out=np.full_like(bottom, np.nan, dtype=kind), where=bottom > 0)


def mean_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1, dtype=values.dtype))


def recalls(matrices: Stack) -> np.ndarray:
    """Recalls [..., C]; NaN where a class has no images."""
    of = Margins.of(matrices)
    return ratio(of.correct, of.support)


def precisions(matrices: Stack) -> np.ndarray:
    """Precisions [..., C]; 0 where a class is never predicted (scikit-learn's convention)."""
    of = Margins.of(matrices)
    return np.nan_to_num(ratio(of.correct, of.predicted))


def f1_scores(matrices: Stack) -> np.ndarray:
    """F1 scores [..., C]: 2·TP / (support + predicted); NaN where a class neither occurs nor is predicted."""
    of = Margins.of(matrices)
    return ratio(2 * of.correct, of.support + of.predicted)


def accuracy(matrices: Stack) -> np.ndarray:
    """Accuracies [...]."""
    of = Margins.of(matrices)
    return ratio(of.correct.sum(-1), of.support.sum(-1))


def mean_recall(matrices: Stack) -> np.ndarray:
    """Mean-class accuracies [...]: the mean recall of the classes that have images."""
    return mean_known(recalls(matrices))


def macro_f1(matrices: Stack) -> np.ndarray:
    """Macro-F1 [...]: the mean F1 score of the classes that occur or are predicted."""
    return mean_known(f1_scores(matrices))


SCORES: dict[str, Score] = {"accuracy": accuracy, "mean_recall": mean_recall, "macro_f1": macro_f1}
"""The scores that every run is judged by, in training (an epoch's matrix) as in reports (stacks of them)."""


def geometric_mean(matrices: Stack) -> np.ndarray:
    """Geometric mean of the recalls [...]; 0 as soon as one class is never recognised.

    Kubat, Matwin (1997), Addressing the curse of imbalanced training sets, ICML, for two classes; Sun, Kamel, Wang
    (2006), Boosting for learning multiple classes with imbalanced class distribution, ICDM, for more.
    """
    recall = recalls(matrices)
    with np.errstate(divide="ignore"):
        return np.exp(mean_known(np.log(recall)))


def worst_recall(matrices: Stack) -> np.ndarray:
    """The lowest recall of any class [...]."""
    recall = recalls(matrices)
    worst = np.where(np.isnan(recall), np.inf, recall).min(-1)
    return np.where(np.isinf(worst), np.nan, worst)


@dataclass(frozen=True)
class GroupRecall:
    """The score "mean recall of some classes"; it depends on predictions for images of these classes only."""

    classes: tuple[int, ...]

    def __call__(self, matrices: Stack) -> np.ndarray:
        """The mean recall [...]."""
        members = list(self.classes)
        return mean_known(recalls(Margins.of(matrices).map(lambda array: array[..., members])))


@dataclass(frozen=True)
class ClassRecall:
    """The score "recall of class `index`"; it depends on predictions for images of that class only."""

    index: int

    @property
    def classes(self) -> tuple[int, ...]:
        """The class, as a tuple."""
        return (self.index,)

    def __call__(self, matrices: Stack) -> np.ndarray:
        """The recall [...]."""
        return recalls(Margins.of(matrices).map(lambda array: array[..., self.index]))


def depends_on(score: Score) -> tuple[int, ...] | None:
    """The classes whose images a score depends on; None for all."""
    return getattr(score, "classes", None)


def accuracy_under_prior(matrices: Stack, prior: np.ndarray) -> np.ndarray:
    """Expected accuracies [...] if classes had the shares `prior` [C]: :func:`under_prior` without its matrices."""
    of = Margins.of(matrices)
    shares = np.asarray(prior, dtype=float) * (of.support > 0)
    return ratio((shares * np.nan_to_num(ratio(of.correct, of.support))).sum(-1), shares.sum(-1))


def under_prior(matrices: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Expected matrices [..., C, C] on a test set whose classes have the shares `prior` [C].

    Row c becomes prior_c times the distribution of predictions for images of class c, because label shift leaves
    P(prediction | class) unchanged. Classes without test images are left out, and the remaining shares are scaled to
    sum to 1. Accuracy, precision and F1 of the result are those under that prior; recalls do not change.

    M. Saerens, P. Latinne, C. Decaestecker (2002), Adjusting the outputs of a classifier to new a priori
    probabilities, Neural Computation 14; Z. Lipton, Y.-X. Wang, A. Smola (2018), Detecting and correcting for label
    shift with black box predictors, ICML.
    """
    sizes = matrices.sum(-1, keepdims=True)
    given_class = np.divide(matrices, sizes, out=np.zeros(np.shape(matrices)), where=sizes > 0)
    shares = np.asarray(prior, dtype=float)[:, None] * (sizes > 0)
    total = shares.sum(-2, keepdims=True)
    return given_class * np.divide(shares, total, out=np.zeros(np.shape(shares)), where=total > 0)
