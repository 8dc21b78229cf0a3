"""McNemar's test: are two trained networks right on different images more often one way than the other?

It compares two *networks* on a sample of images. Two methods are compared by
:func:`fer_bench.stats.intervals.crossed_difference` and not here, for two reasons. Each seed gives another pair of
networks, and equal methods give unequal networks: with enough images every seed's test is significant, and so is any
combination of them. And the seeds answer the same images, so their p-values are not independent: Fisher's product would
count each image S times.

So the test is given for each seed (:func:`mcnemar_by_seed`), which is what a published McNemar of one run can be set
against. :func:`pooled` counts an image once, as a cluster of S answers: it is valid for these S pairs of networks and
says nothing of other trainings. :func:`combined` is valid whatever the dependence, for the claim that *some* seed's
pair differs. None of them is a verdict on methods.

References
----------
Q. McNemar (1947), Note on the sampling error of the difference between correlated proportions, Psychometrika 12.
M. Fagerland, S. Lydersen, P. Laake (2013), The McNemar test for binary matched-pairs data: mid-p and asymptotic are
better than exact conditional, BMC Medical Research Methodology 13:91.
V. Durkalski et al. (2003), Analysis of clustered matched-pair data, Statistics in Medicine 22.
V. Vovk, R. Wang (2020), Combining p-values via averaging, Biometrika 107.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Discordant images of two networks, and the p-values of their balance.

    Attributes
    ----------
    gained : int
        Images that ours has right and the reference has wrong.
    lost : int
        Images that ours has wrong and the reference has right.
    images : int
        All images that both have seen.
    exact, midp : float
        Two-sided p-values from the binomial(gained + lost, 1/2): the exact conditional one, never too small, and
        mid-p, which is nearer to its level in small samples; 1 where no image is discordant.
    """

    gained: int
    lost: int
    images: int
    exact: float
    midp: float

    @property
    def discordance(self) -> float:
        """Share of images on which just one of the two is right; NaN without images."""
        return (self.gained + self.lost) / self.images if self.images else float("nan")

    @property
    def difference(self) -> float:
        """Difference of the shares right; NaN without images."""
        return (self.gained - self.lost) / self.images if self.images else float("nan")


def mcnemar(gained: int, lost: int, images: int) -> McNemar:
    """McNemar's test from the two discordant counts.

    mid-p takes half the probability of the table seen: exact - P(X = gained), and 1 - P(X = gained) / 2 for gained =
    lost (Fagerland 2013).

    Raises
    ------
    ValueError
        Counts that are negative, or more discordant images than images.
    """
    discordant = gained + lost
    if min(gained, lost) < 0 or discordant > images:
        raise ValueError(f"{gained} gained and {lost} lost do not fit {images} images")
    fewer = min(gained, lost)
    below = float(special.bdtr(fewer - 1, discordant, 0.5)) if fewer else 0.0
    up_to = float(special.bdtr(fewer, discordant, 0.5))
    midp = 1 - (up_to - below) / 2 if gained == lost else up_to + below
    return McNemar(gained=gained, lost=lost, images=images, exact=min(1.0, 2 * up_to), midp=midp if discordant else 1.0)


def mcnemar_by_seed(
    labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, label: int | None = None
) -> tuple[McNemar, ...]:
    """McNemar's test of each seed's pair of networks.

    Parameters
    ----------
    labels : ndarray [n]
        True classes.
    ours, reference : ndarray [S, n]
        Predicted classes, row s of both is one seed; images that one side has not seen (-1) are left out.
    label : int, optional
        Compare on the images of this class alone: recall instead of accuracy.
    """
    gains = _gains(labels, ours, reference, label)
    return tuple(mcnemar(int((g == 1).sum()), int((g == -1).sum()), int(np.isfinite(g).sum())) for g in gains)


def pooled(labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, label: int | None = None) -> float:
    """Two-sided p-value of the answers of all seeds together, an image being one cluster of S pairs (Durkalski 2003).

    With g_i the images' sums of gains less losses over seeds: chi² = (sum g_i)² / sum g_i², one degree of freedom. One
    seed gives McNemar's asymptotic test. Parameters as in :func:`mcnemar_by_seed`; 1 where nothing is discordant.
    """
    sums = np.nansum(_gains(labels, ours, reference, label), axis=0)
    squares = float((sums**2).sum())
    return float(special.chdtrc(1, float(sums.sum()) ** 2 / squares)) if squares else 1.0


def combined(p_values: Sequence[float]) -> float:
    """Twice the mean of p-values, at most 1: a p-value under any dependence (Vovk, Wang 2020).

    The hypothesis is that *no* seed's pair of networks differs. NaN is left out; NaN where none is left.
    """
    p = np.asarray(p_values, dtype=float)
    p = p[np.isfinite(p)]
    return min(1.0, 2 * float(p.mean())) if len(p) else float("nan")


def _gains(labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, label: int | None) -> np.ndarray:
    """+1 gained, -1 lost, 0 alike, NaN not seen by both: [S, images]."""
    if ours.shape != reference.shape:
        raise ValueError(f"paired predictions must have one shape, not {ours.shape} and {reference.shape}")
    mine = slice(None) if label is None else labels == label
    right = [(side == labels)[:, mine].astype(float) for side in (ours, reference)]
    unseen = ((ours < 0) | (reference < 0))[:, mine]
    return np.where(unseen, np.nan, right[0] - right[1])
