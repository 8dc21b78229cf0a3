"""Scores that are means over images of a number between 0 and 1, such as the share of votes for the predicted class.

They are not functions of a confusion matrix, but they vary with seeds and images in the same way, so
:func:`jackknife_of_means` gives what intervals and differences are made of. For values of 0 and 1 it is the jackknife
of an accuracy (:func:`fer_bench.stats.crossed_errors.jackknife`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fer_bench.stats.confusion import ratio
from fer_bench.stats.crossed_errors import Jackknife, units_of_accuracy
from fer_bench.stats.crossed_subsets import several
from fer_bench.stats.sampling import Stratum, Truth, strata


def jackknife_of_means(truth: Truth, values: Mapping[str, np.ndarray], subsets: np.ndarray | None = None) -> Jackknife:
    """Mean over images for each training, with all sampling units and without each in turn.

    Parameters
    ----------
    truth : Truth
        The test set, with its sampling units; as for other scores, class sizes stay fixed if each unit is of one class.
    values : mapping of name to ndarray [S, n]
        What each of S trainings gets for each image, 0 to 1; NaN where a training has not seen it.
    subsets : int ndarray [S], optional
        The subset of the training images of each training, as :func:`fer_bench.stats.crossed_errors.jackknife` takes
        it.
    """
    places = np.arange(len(truth.labels))[None]
    parts = list(strata(truth, places))  # the images of a stratum stand where its predictions would
    left_out: dict[str, dict[int, np.ndarray]] = {}
    means, behind = {}, {}
    for name, of in values.items():
        seen = np.isfinite(of)
        known, number = np.where(seen, of, 0.0), seen.astype(float)
        total, images = known.sum(1), number.sum(1)
        sums = [_by_unit(known, part) for part in parts]
        sizes = [_by_unit(number, part) for part in parts]
        means[name] = ratio(total, images)
        left_out[name] = {k: ratio(total - sums[k], images - sizes[k]) for k in range(len(parts))}
        behind[name] = units_of_accuracy(truth, seen)
    return Jackknife(
        values=means,
        left_out=left_out,
        units=tuple(part.size for part in parts),
        effective_units=behind,
        units_are_images=all(part.one_class_of_images for part in parts),
        subsets=several(subsets),
    )


def _by_unit(values: np.ndarray, part: Stratum) -> np.ndarray:
    """Sums [U, S] of `values` [S, n] over the images of each unit of a stratum."""
    images = part.predictions[0]
    return np.stack([np.bincount(part.units, weights=of[images], minlength=part.size) for of in values], axis=1)
