"""How a test set is sampled: its ground truth, its sampling units, and the strata within which they are drawn.

A *sampling unit* is what another test set would have drawn in one piece: an image, or a cluster of images, such as all
images of a person, or the copies of one image in the folds of repeated splits. A *stratum* holds the units that are
resampled among themselves: those of one class, so that class sizes stay fixed, wherever each unit is of one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fer_bench.stats.confusion import Margins

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The ground truth of a test set of n images, which all predictions on it share.

    Attributes
    ----------
    labels : ndarray [n]
        True classes.
    classes : int
        Number of classes C.
    clusters : ndarray [n], optional
        The cluster of each image: images with the same value form one sampling unit. Every image is a unit if omitted.

    Raises
    ------
    ValueError
        `clusters` does not have one entry per image.
    """

    labels: np.ndarray
    classes: int
    clusters: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.clusters is not None and np.shape(self.clusters) != np.shape(self.labels):
            shapes = f"{np.shape(self.clusters)} must have the shape of the labels {np.shape(self.labels)}"
            raise ValueError(f"clusters {shapes}")

    @cached_property
    def units(self) -> np.ndarray:
        """The sampling unit [n] of each image, numbered from 0."""
        if self.clusters is None:
            return np.arange(len(self.labels))
        return np.unique(self.clusters, return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class Stratum:
    """Images that are resampled among themselves.

    Attributes
    ----------
    labels : ndarray [n]
        True classes.
    predictions : ndarray [R, n]
        Predicted classes of R runs; -1 where a run has not seen an image.
    units : ndarray [n]
        The sampling unit of each image, from 0 to U - 1.
    classes : int
        Number of classes C.
    """

    labels: np.ndarray
    predictions: np.ndarray
    units: np.ndarray
    classes: int

    @cached_property
    def present(self) -> np.ndarray:
        """The true classes that occur in it."""
        return np.unique(self.labels)

    @cached_property
    def size(self) -> int:
        """Number of units U."""
        return int(self.units.max()) + 1

    @property
    def one_class_of_images(self) -> bool:
        """Whether it has one class and every unit is one image."""
        return len(self.present) == 1 and self.size == len(self.units)

    @property
    def predictions_by_unit(self) -> np.ndarray:
        """Predictions [R, U] in the order of the units, where every unit is one image."""
        return self.predictions[:, np.argsort(self.units)]

    def contributions(self, first: int, last: int) -> Margins:
        """What each of the units `first` to `last` - 1 adds to the margins of the runs, [last - first, R, C]."""
        mine = np.flatnonzero((self.units >= first) & (self.units < last))
        runs, size = len(self.predictions), (last - first) * self.classes
        units = (self.units[mine] - first) * self.classes
        out = Margins(*np.zeros((3, last - first, runs, self.classes)))
        for run in range(runs):
            counted = _counted_images(self.labels[mine], self.predictions[run, mine])
            for array, (images, classes) in zip((out.correct, out.support, out.predicted), counted, strict=True):
                array[:, run] = np.bincount(units[images] + classes, minlength=size).reshape(-1, self.classes)
        return out

    @cached_property
    def sparse_contributions(self) -> tuple[np.ndarray, csr_array]:
        """What each unit adds to the margins of the runs, as a sparse matrix.

        Returns
        -------
        ndarray [M]
            The entries of the margins [3, C, R], as flat indices, to which any unit adds something.
        csr_array [M, U]
            How much each unit adds to them, float32.
        """
        from scipy.sparse import csr_array  # late: whoever scores logits alone needs no scipy

        runs, places, units = len(self.predictions), [], []
        for run, predicted in enumerate(self.predictions):
            for kind, (images, classes) in enumerate(_counted_images(self.labels, predicted)):
                places.append((kind * self.classes + classes) * runs + run)
                units.append(self.units[images])
        rows, place = np.unique(np.concatenate(places), return_inverse=True)
        ones = np.ones(len(place), np.float32)
        return rows, csr_array((ones, (place, np.concatenate(units))), shape=(len(rows), self.size))


def _counted_images(labels: np.ndarray, predicted: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """For each of the three margins of one run: the images that count there, and the classes they count for."""
    seen = np.flatnonzero(predicted >= 0)
    correct = seen[labels[seen] == predicted[seen]]
    return (correct, labels[correct]), (seen, labels[seen]), (seen, predicted[seen])


def strata(truth: Truth, predictions: np.ndarray) -> Iterator[Stratum]:
    """The strata of a test set with the predictions [R, n] of R runs, in the order of the classes.

    Every class is a stratum if each sampling unit is of one class. Otherwise all units form one stratum, and class
    sizes vary from draw to draw.
    """
    labels, units = truth.labels, truth.units
    pure = truth.clusters is None or len(np.unique(np.stack([units, labels]), axis=1).T) == len(np.unique(units))
    if not pure:
        yield _stratum(labels, predictions, truth.classes, units)
        return
    for label in np.unique(labels):
        mine = labels == label
        yield _stratum(labels[mine], predictions[:, mine], truth.classes, units[mine])


def _stratum(labels: np.ndarray, predictions: np.ndarray, classes: int, units: np.ndarray) -> Stratum:
    return Stratum(labels, predictions, np.unique(units, return_inverse=True)[1], classes)


def paired(ours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Both predictions [2, S, n], set to -1 on both sides where either side has not seen an image.

    Raises
    ------
    ValueError
        The two have different shapes, so their rows can't be pairs.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"paired predictions must have one shape, not {ours.shape} and {reference.shape}")
    return np.where((ours < 0) | (reference < 0), -1, np.stack([ours, reference]))
