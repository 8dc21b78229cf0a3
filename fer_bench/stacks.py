"""Stacks of confusion matrices: how they are counted, what they are resampled from, and every score read off them.

A stack has any shape [..., C, C], rows true classes, columns predicted ones: one function serves one run, all seeds, or
two thousand draws of a bootstrap. A class without images has no recall (NaN) and is left out of means, unless a
function says otherwise. :mod:`fer_bench.metrics` holds the same scores of a single matrix for the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

Stacked = Callable[[np.ndarray], np.ndarray]


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
    def columns(self) -> np.ndarray:
        """Answers [K] that occur in it."""
        return np.flatnonzero(np.bincount(self.predictions.ravel() + 1, minlength=self.classes + 1)[1:])

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

    @property
    def cells(self) -> np.ndarray:
        """What each unit adds to `rows` and `columns` of the runs' confusion matrices, float32 [L, K, R, U]."""
        shape = len(self.rows), len(self.columns), self.size
        row = np.searchsorted(self.rows, self.labels)
        place = np.zeros(self.classes + 1, int)
        place[self.columns] = np.arange(len(self.columns))  # the last, for what was not seen, is not asked for
        cells = np.empty((*shape[:2], len(self.predictions), self.size), np.float32)
        for run, predicted in enumerate(self.predictions):
            flat = (row * shape[1] + place[predicted]) * self.size + self.units
            counts = np.bincount(flat[predicted >= 0], minlength=int(np.prod(shape)))
            cells[:, :, run] = counts.reshape(shape)
        return cells


def confusions(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrices [R, C, C] of `predictions` [R, n]; an image predicted -1 (not seen by a run) is left out."""
    cells, first = classes**2, np.asarray(labels) * classes
    matrices = np.empty((len(predictions), cells))
    for matrix, row in zip(matrices, predictions, strict=True):  # one at a time stays in the processor's cache
        place = first + row
        unseen = row < 0
        if unseen.any():
            place[unseen] = cells
        matrix[:] = np.bincount(place, minlength=cells)[:cells]
    return matrices.reshape(-1, classes, classes)


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


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=-2, axis2=-1)


def recalls(matrices: np.ndarray) -> np.ndarray:
    """Recalls [..., C]."""
    return ratio(_diagonal(matrices), matrices.sum(-1))


def precisions(matrices: np.ndarray) -> np.ndarray:
    """Precisions [..., C]; 0 where a class is never predicted (scikit-learn's convention)."""
    return np.nan_to_num(ratio(_diagonal(matrices), matrices.sum(-2)))


def f1_scores(matrices: np.ndarray) -> np.ndarray:
    """F1 scores [..., C]; NaN where a class neither occurs nor is predicted."""
    return ratio(2 * _diagonal(matrices), matrices.sum(-1) + matrices.sum(-2))


def accuracy(matrices: np.ndarray) -> np.ndarray:
    """Accuracies [...]."""
    return ratio(_diagonal(matrices).sum(-1), matrices.sum((-2, -1)))


def mean_recall(matrices: np.ndarray) -> np.ndarray:
    """Mean-class accuracies [...]."""
    return mean_known(recalls(matrices))


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Macro-F1 [...]: the mean of the classes' F1 scores."""
    return mean_known(f1_scores(matrices))


def geometric_mean(matrices: np.ndarray) -> np.ndarray:
    """Geometric mean of the recalls [...]; 0 as soon as one class is never recognised.

    Kubat, Matwin (1997), Addressing the curse of imbalanced training sets, ICML, for two classes; Sun, Kamel, Wang
    (2006), Boosting for learning multiple classes with imbalanced class distribution, ICDM, for more.
    """
    recall = recalls(matrices)
    with np.errstate(divide="ignore"):
        return np.exp(mean_known(np.log(recall)))


def worst_recall(matrices: np.ndarray) -> np.ndarray:
    """Recall [...] of the class that is recognised worst."""
    recall = recalls(matrices)
    worst = np.where(np.isnan(recall), np.inf, recall).min(-1)
    return np.where(np.isinf(worst), np.nan, worst)


def group_recall(members: tuple[int, ...]) -> Stacked:
    """The metric "mean recall of the classes `members`"."""
    return partial(_group_recall, members=members)


def _group_recall(matrices: np.ndarray, members: tuple[int, ...]) -> np.ndarray:
    return mean_known(recalls(matrices)[..., list(members)])


def recall_of(index: int) -> Stacked:
    """The metric "recall of class `index`"."""
    return partial(_recall_of, index=index)


def _recall_of(matrices: np.ndarray, index: int) -> np.ndarray:
    return ratio(matrices[..., index, index], matrices[..., index, :].sum(-1))


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
"""The scores of :data:`fer_bench.metrics.SCORES`, for stacks of matrices."""
