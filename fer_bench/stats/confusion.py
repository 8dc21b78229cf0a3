"""Stacks of confusion matrices: how they are counted, what they are resampled from, and every score read off them.

A stack has any shape [..., C, C], rows true classes, columns predicted ones: one function serves one run, all seeds, or
two thousand draws of a bootstrap. Nearly every score needs three numbers a class, not C: how many images of it were
recognised, how many there are, and how often it was answered. So whatever has many matrices keeps their
:class:`Margins`, and the scores take either. A class without images has no recall (NaN) and is left out of means,
unless a function says otherwise. :mod:`fer_bench.stats.scores` holds the same scores of a single matrix for the
training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Margins:
    """What scores need of confusion matrices [..., C, C]; three arrays [..., C].

    Attributes
    ----------
    right : ndarray
        Images of each class that were recognised: the diagonals.
    true : ndarray
        Images of each class: the sums of rows.
    answered : ndarray
        Images for which each class was the answer: the sums of columns.
    """

    right: np.ndarray
    true: np.ndarray
    answered: np.ndarray

    @classmethod
    def of(cls, matrices: Stack) -> Margins:
        """Those of matrices, or the ones that are given."""
        if isinstance(matrices, Margins):
            return matrices
        return cls(np.diagonal(matrices, axis1=-2, axis2=-1), matrices.sum(-1), matrices.sum(-2))

    @classmethod
    def counted(cls, labels: np.ndarray, predictions: np.ndarray, classes: int) -> Margins:
        """Those of `predictions` [R, n], [R, C]; an image predicted -1 (not seen by a run) is left out."""
        out = cls(*np.zeros((3, len(predictions), classes)))
        for run, predicted in enumerate(predictions):
            seen = predicted >= 0
            truth, answer = labels[seen], predicted[seen]
            out.right[run] = np.bincount(truth[truth == answer], minlength=classes)
            out.true[run] = np.bincount(truth, minlength=classes)
            out.answered[run] = np.bincount(answer, minlength=classes)
        return out

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Margins:
        """The same change made to all three arrays."""
        return Margins(change(self.right), change(self.true), change(self.answered))

    def repeated(self, times: int) -> Margins:
        """The same ones several times, along a new first axis."""
        return self.map(lambda array: np.repeat(array[None], times, axis=0))


Stack = np.ndarray | Margins
Stacked = Callable[[Stack], np.ndarray]


@dataclass(frozen=True, eq=False)
class Stratum:
    """Images that are resampled among themselves.

    Attributes
    ----------
    labels : ndarray [n]
        True classes.
    predictions : ndarray [R, n]
        Predicted classes of R runs; -1 where an image was not seen.
    units : ndarray [n]
        Which of the units 0 to U - 1 an image belongs to. A unit is an image, or a cluster.
    classes : int
        Number of classes C.
    """

    labels: np.ndarray
    predictions: np.ndarray
    units: np.ndarray
    classes: int

    @cached_property
    def rows(self) -> np.ndarray:
        """True classes [L] that occur in it."""
        return np.unique(self.labels)

    @cached_property
    def size(self) -> int:
        """Number of units U."""
        return int(self.units.max()) + 1

    @property
    def single(self) -> bool:
        """Whether it is of one class and every unit is one image."""
        return len(self.rows) == 1 and self.size == len(self.units)

    @property
    def answers(self) -> np.ndarray:
        """Predictions [R, U] in the order of the units, where every unit is one image."""
        return self.predictions[:, np.argsort(self.units)]

    def added(self, first: int, last: int) -> Margins:
        """What each of some units adds to the margins of the runs, [last - first, R, C]."""
        mine = np.flatnonzero((self.units >= first) & (self.units < last))
        runs, size = len(self.predictions), (last - first) * self.classes
        units = (self.units[mine] - first) * self.classes
        out = Margins(*np.zeros((3, last - first, runs, self.classes)))
        for run in range(runs):
            found = _places(self.labels[mine], self.predictions[run, mine])
            for array, (images, places) in zip((out.right, out.true, out.answered), found, strict=True):
                array[:, run] = np.bincount(units[images] + places, minlength=size).reshape(-1, self.classes)
        return out

    @cached_property
    def cells(self) -> tuple[np.ndarray, csr_array]:
        """What each unit adds to the margins of the runs, where it adds anything.

        Returns
        -------
        ndarray [M]
            Where a row stands among the margins [3, C, R], counted through.
        csr_array [M, U]
            How much each unit adds, float32.
        """
        from scipy.sparse import csr_array  # late: whoever scores logits alone needs no scipy

        runs, places, units = len(self.predictions), [], []
        for run, predicted in enumerate(self.predictions):
            for kind, (images, classes) in enumerate(_places(self.labels, predicted)):
                places.append((kind * self.classes + classes) * runs + run)
                units.append(self.units[images])
        rows, place = np.unique(np.concatenate(places), return_inverse=True)
        ones = np.ones(len(place), np.float32)
        return rows, csr_array((ones, (place, np.concatenate(units))), shape=(len(rows), self.size))


def _places(labels: np.ndarray, predicted: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Images that count as right, as true and as answered in one run, each with the classes for which they do."""
    seen = np.flatnonzero(predicted >= 0)
    right = seen[labels[seen] == predicted[seen]]
    return (right, labels[right]), (seen, labels[seen]), (seen, predicted[seen])


def confusions(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrices [R, C, C] of `predictions` [R, n]; an image predicted -1 (not seen by a run) is left out."""
    matrices = np.empty((len(predictions), classes**2))
    for matrix, row in zip(matrices, predictions, strict=True):  # one at a time stays in the processor's cache
        matrix[:] = _counts(labels, row, classes)
    return matrices.reshape(-1, classes, classes)


def mean_confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """The mean [C, C] of :func:`confusions`, of which one is in memory at a time."""
    total = np.zeros(classes**2)
    for row in predictions:
        total += _counts(labels, row, classes)
    return (total / len(predictions)).reshape(classes, classes)


def _counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """A confusion matrix [C * C]."""
    cells, place = classes**2, np.asarray(labels) * classes + predicted
    unseen = predicted < 0
    if unseen.any():
        place[unseen] = cells
    return np.bincount(place, minlength=cells)[:cells]


def paired(ours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Both predictions [2, S, n], with -1 on both sides for what one of them has not seen.

    Raises
    ------
    ValueError
        The two have different shapes, so rows can't be pairs.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"paired predictions must have one shape, not {ours.shape} and {reference.shape}")
    return np.where((ours < 0) | (reference < 0), -1, np.stack([ours, reference]))


def strata(
    labels: np.ndarray, predictions: np.ndarray, classes: int, clusters: np.ndarray | None = None
) -> Iterator[Stratum]:
    """The strata of a test set, in the order of the classes.

    Without `clusters` every class is a stratum and every image a unit, so class sizes are fixed. With `clusters` [n]
    (the image's identity where folds of repeated splits test it several times, or the person) a unit is a cluster. If
    each cluster is of one class, classes stay strata; otherwise all clusters form one stratum and class sizes vary.

    Raises
    ------
    ValueError
        `clusters` does not have one entry an image.
    """
    if clusters is None:
        units, pure = np.arange(len(labels)), True
    else:
        if np.shape(clusters) != np.shape(labels):
            raise ValueError(f"clusters {np.shape(clusters)} must have the shape of the labels {np.shape(labels)}")
        units = np.unique(clusters, return_inverse=True)[1]
        pure = len(np.unique(np.stack([units, labels]), axis=1).T) == len(np.unique(units))
    if not pure:
        yield _stratum(labels, predictions, classes, units)
        return
    for label in np.unique(labels):
        mine = labels == label
        yield _stratum(labels[mine], predictions[:, mine], classes, units[mine])


def _stratum(labels: np.ndarray, predictions: np.ndarray, classes: int, units: np.ndarray) -> Stratum:
    return Stratum(labels, predictions, np.unique(units, return_inverse=True)[1], classes)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """`top` / `bottom`, NaN where `bottom` is not positive."""
    # The result lies in memory as `bottom` does: a bootstrap's draws are the inner axis there, not the last.
    kind = np.result_type(top, bottom, np.float32)
    return np.divide(top, bottom, out=np.full_like(bottom, np.nan, dtype=kind), where=bottom > 0)


def mean_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1, dtype=values.dtype))


def recalls(matrices: Stack) -> np.ndarray:
    """Recalls [..., C]."""
    of = Margins.of(matrices)
    return ratio(of.right, of.true)


def precisions(matrices: Stack) -> np.ndarray:
    """Precisions [..., C]; 0 where a class is never predicted (scikit-learn's convention)."""
    of = Margins.of(matrices)
    return np.nan_to_num(ratio(of.right, of.answered))


def f1_scores(matrices: Stack) -> np.ndarray:
    """F1 scores [..., C]; NaN where a class neither occurs nor is predicted."""
    of = Margins.of(matrices)
    return ratio(2 * of.right, of.true + of.answered)


def accuracy(matrices: Stack) -> np.ndarray:
    """Accuracies [...]."""
    of = Margins.of(matrices)
    return ratio(of.right.sum(-1), of.true.sum(-1))


def mean_recall(matrices: Stack) -> np.ndarray:
    """Mean-class accuracies [...]."""
    return mean_known(recalls(matrices))


def macro_f1(matrices: Stack) -> np.ndarray:
    """Macro-F1 [...]: the mean of the classes' F1 scores."""
    return mean_known(f1_scores(matrices))


def geometric_mean(matrices: Stack) -> np.ndarray:
    """Geometric mean of the recalls [...]; 0 as soon as one class is never recognised.

    Kubat, Matwin (1997), Addressing the curse of imbalanced training sets, ICML, for two classes; Sun, Kamel, Wang
    (2006), Boosting for learning multiple classes with imbalanced class distribution, ICDM, for more.
    """
    recall = recalls(matrices)
    with np.errstate(divide="ignore"):
        return np.exp(mean_known(np.log(recall)))


def worst_recall(matrices: Stack) -> np.ndarray:
    """Recall [...] of the class that is recognised worst."""
    recall = recalls(matrices)
    worst = np.where(np.isnan(recall), np.inf, recall).min(-1)
    return np.where(np.isinf(worst), np.nan, worst)


@dataclass(frozen=True)
class GroupRecall:
    """The metric "mean recall of some classes"; it depends on answers to their images alone."""

    classes: tuple[int, ...]

    def __call__(self, matrices: Stack) -> np.ndarray:
        """The recall [...]."""
        members = list(self.classes)
        return mean_known(recalls(Margins.of(matrices).map(lambda array: array[..., members])))


@dataclass(frozen=True)
class ClassRecall:
    """The metric "recall of class `index`"; it depends on answers to its images alone."""

    index: int

    @property
    def classes(self) -> tuple[int, ...]:
        """The class."""
        return (self.index,)

    def __call__(self, matrices: Stack) -> np.ndarray:
        """The recall [...]."""
        return recalls(Margins.of(matrices).map(lambda array: array[..., self.index]))


group_recall, recall_of = GroupRecall, ClassRecall


def depends_on(metric: Stacked) -> tuple[int, ...] | None:
    """The classes on whose images a metric depends; None for all."""
    return getattr(metric, "classes", None)


def accuracy_under_prior(matrices: Stack, prior: np.ndarray) -> np.ndarray:
    """Accuracies [...] to expect where classes have the shares `prior` [C]: :func:`under_prior` without matrices."""
    of = Margins.of(matrices)
    shares = np.asarray(prior, dtype=float) * (of.true > 0)
    return ratio((shares * np.nan_to_num(ratio(of.right, of.true))).sum(-1), shares.sum(-1))


def under_prior(matrices: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The matrices [..., C, C] to expect on a test set whose classes have the shares `prior` [C].

    Row c becomes prior_c times the share of each answer among the images of class c: under label shift P(answer |
    class) stays as it is. Classes without test images are left out and the shares of the others raised to 1 in sum.
    Accuracy, precision, F1 of the result are those under that prior; recalls do not change.

    M. Saerens, P. Latinne, C. Decaestecker (2002), Adjusting the outputs of a classifier to new a priori
    probabilities, Neural Computation 14; Z. Lipton, Y.-X. Wang, A. Smola (2018), Detecting and correcting for label
    shift with black box predictors, ICML.
    """
    sizes = matrices.sum(-1, keepdims=True)
    answers = np.divide(matrices, sizes, out=np.zeros(np.shape(matrices)), where=sizes > 0)
    shares = np.asarray(prior, dtype=float)[:, None] * (sizes > 0)
    total = shares.sum(-2, keepdims=True)
    return answers * np.divide(shares, total, out=np.zeros(np.shape(shares)), where=total > 0)


STACKED: dict[str, Stacked] = {"accuracy": accuracy, "mean_recall": mean_recall, "macro_f1": macro_f1}
"""The scores of :data:`fer_bench.stats.scores.SCORES`, for stacks of matrices."""
