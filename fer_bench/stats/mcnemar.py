"""McNemar's test: of the images that only one of two networks classifies correctly, does one network have more?

It compares two *networks* on a sample of images. Methods are compared by
:func:`fer_bench.stats.intervals.score_differences` instead, for two reasons. Each seed gives another pair of networks,
and equal methods give unequal networks: with enough images every seed's test is significant, and so is any combination
of them. And all seeds are tested on the same images, so their p-values are not independent: Fisher's product would
count each image S times.

So the test is computed for each seed (:func:`mcnemar_by_seed`), to be compared with a published McNemar test of one
run. :func:`pooled` counts an image once, as a cluster of S predictions: it is valid for these S pairs of networks and
says nothing about other trainings. :func:`combined` is valid under any dependence, for the claim that *some* seed's
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
        Images that only ours classifies correctly.
    lost : int
        Images that only the reference classifies correctly.
    images : int
        All images that both have seen.
    exact_p, mid_p : float
        Two-sided p-values from the binomial(gained + lost, 1/2): the exact conditional one, which is never too small,
        and mid-p, which is closer to its nominal level in small samples; 1 where no image is discordant.
    """

    gained: int
    lost: int
    images: int
    exact_p: float
    mid_p: float

    @property
    def discordance(self) -> float:
        """Share of images that only one of the two classifies correctly; NaN without images."""
        return (self.gained + self.lost) / self.images if self.images else float("nan")

    @property
    def difference(self) -> float:
        """Difference of the accuracies; NaN without images."""
        return (self.gained - self.lost) / self.images if self.images else float("nan")


def mcnemar(gained: int, lost: int, images: int) -> McNemar:
    """McNemar's test from the two discordant counts.

    mid-p counts half the probability of the observed table: exact - P(X = gained), and 1 - P(X = gained) / 2 for gained
    = lost (Fagerland 2013).

    Raises
    ------
    ValueError
        A negative count, or more discordant images than images.
    """
    discordant = gained + lost
    if min(gained, lost) < 0 or discordant > images:
        raise ValueError(f"{gained} gained and {lost} lost do not fit {images} images")
    fewer = min(gained, lost)
    below = float(special.bdtr(fewer - 1, discordant, 0.5)) if fewer else 0.0
    up_to = float(special.bdtr(fewer, discordant, 0.5))
    mid_p = 1.0
    if discordant:
        mid_p = 1 - (up_to - below) / 2 if gained == lost else up_to + below
    return McNemar(gained=gained, lost=lost, images=images, exact_p=min(1.0, 2 * up_to), mid_p=mid_p)


def mcnemar_by_seed(
    labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, label: int | None = None
) -> tuple[McNemar, ...]:
    """McNemar's test of each seed's pair of networks.

    Parameters
    ----------
    labels : ndarray [n]
        True classes.
    ours, reference : ndarray [S, n]
        Predicted classes; row s of both is the same seed. Images that one side has not seen (-1) are left out.
    label : int, optional
        Compare on the images of this class only: recall instead of accuracy.
    """
    gains = _gains(labels, ours, reference, label)
    return tuple(mcnemar(int((g == 1).sum()), int((g == -1).sum()), int(np.isfinite(g).sum())) for g in gains)


def pooled(labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, label: int | None = None) -> float:
    """Two-sided p-value of the predictions of all seeds together, each image one cluster of S pairs (Durkalski 2003).

    With g_i the gains minus losses of image i, summed over seeds: chi² = (sum g_i)² / sum g_i², one degree of freedom.
    One seed gives McNemar's asymptotic test. Parameters as in :func:`mcnemar_by_seed`; 1 where nothing is discordant.
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
    """Gains [S, images]: +1 gained, -1 lost, 0 both or neither correct, NaN where one side has not seen the image."""
    if ours.shape != reference.shape:
        raise ValueError(f"paired predictions must have one shape, not {ours.shape} and {reference.shape}")
    mine = slice(None) if label is None else labels == label
    correct = [(side == labels)[:, mine].astype(float) for side in (ours, reference)]
    unseen = ((ours < 0) | (reference < 0))[:, mine]
    return np.where(unseen, np.nan, correct[0] - correct[1])
