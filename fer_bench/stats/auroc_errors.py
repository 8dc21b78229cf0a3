"""The area under the ROC curve of some classes over crossed seeds and images: what its intervals are made of.

An area is not a function of a confusion matrix, but it varies with seeds and images in the same way. The area without
an image follows from the share of pairs that the image is part of, so all areas that leave one unit out cost no more
than the area itself (the jackknife of the Mann-Whitney statistic; Arvesen 1969). Its t-intervals
(:func:`fer_bench.stats.intervals.t_intervals`) are those of Obuchowski and Rockette, whose design this is.

References
----------
J. Arvesen (1969), Jackknifing U-statistics, Annals of Mathematical Statistics 40.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_bench.stats.confusion import ratio
from fer_bench.stats.crossed_errors import Jackknife
from fer_bench.stats.crossed_subsets import several
from fer_bench.stats.probabilities import log_odds
from fer_bench.stats.sampling import Truth, strata

AUROC = "auroc"


def jackknife_of_auroc(
    truth: Truth, logits: np.ndarray, classes: Sequence[int], subsets: np.ndarray | None = None
) -> Jackknife:
    """Mean area of `classes`, each against the rest, for each training, with all units and without each in turn.

    Parameters
    ----------
    truth : Truth
        The test set, with its sampling units.
    logits : ndarray [S, n, C]
        Of S trainings; NaN where a training has not seen an image.
    classes : sequence of int
        The classes whose areas are averaged. Each needs images, and so do the others.
    subsets : int ndarray [S], optional
        The subset of the training images of each training, as :func:`fer_bench.stats.crossed_errors.jackknife` takes
        it.

    Returns
    -------
    Jackknife
        With the one score :data:`AUROC`.
    """
    by_training = [_areas(truth, of, classes) for of in logits]
    whole = np.array([area for area, _ in by_training])
    without = np.stack([left for _, left in by_training], axis=1)
    places = np.arange(len(truth.labels))[None]
    parts = list(strata(truth, places))  # the images of a stratum stand where its predictions would
    units = [np.unique(truth.units[part.predictions[0]]) for part in parts]
    return Jackknife(
        values={AUROC: whole},
        left_out={AUROC: {number: without[of] for number, of in enumerate(units)}},
        units=tuple(part.size for part in parts),
        effective_units={},
        units_are_images=all(part.one_class_of_images for part in parts),
        subsets=several(subsets),
    )


def _areas(truth: Truth, logits: np.ndarray, classes: Sequence[int]) -> tuple[float, np.ndarray]:
    """The mean area of the classes for one training, and the same without each unit [U], from logits [n, C]."""
    odds = log_odds(np.asarray(logits, dtype=np.float64).T)
    areas = [_area(truth, odds[c], c) for c in classes]
    return float(np.mean([area for area, _ in areas])), np.mean([left for _, left in areas], axis=0)


def _area(truth: Truth, odds: np.ndarray, label: int) -> tuple[float, np.ndarray]:
    seen, units = np.isfinite(odds), truth.units
    own, others = seen & (truth.labels == label), seen & (truth.labels != label)
    won = np.zeros(len(odds))  # pairs that each image is part of and that are in order; a tie counts half
    won[own] = _below(odds[own], odds[others])
    won[others] = _below(-odds[others], -odds[own])
    size = int(units.max()) + 1
    pairs, ours, theirs = (np.bincount(units, weights=of, minlength=size) for of in (won, own, others))
    for unit in np.flatnonzero((ours > 0) & (theirs > 0)):  # pairs within a unit have been counted twice
        mine = units == unit
        pairs[unit] -= _below(odds[mine & own], odds[mine & others]).sum()
    total = won[own].sum()
    area = ratio(total, np.float64(own.sum()) * others.sum())
    return float(area), ratio(total - pairs, (own.sum() - ours) * (others.sum() - theirs))


def _below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of `others` lie below each value; equal ones count half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
