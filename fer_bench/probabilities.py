"""Scores of logits rather than of decisions: calibration, ranking, near misses.

Every function takes `logits` [S, n, C] of S seeds and `labels` [n] and works on all seeds at once. An image that a seed
has not seen has NaN logits there and is left out of that seed. Probabilities are float64, whatever the logits were.

References
----------
M. Naeini, G. Cooper, M. Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning, AAAI.
C. Guo et al. (2017), On calibration of modern neural networks, ICML.
M. Kull et al. (2019), Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with Dirichlet
calibration, NeurIPS.
G. Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78.
J. Hanley, B. McNeil (1982), The meaning and use of the area under a receiver operating characteristic curve, Radiology.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.special import softmax as _softmax
from scipy.stats import rankdata

from fer_bench.stacks import mean_known, ratio

BINS = 15  # Guo et al. 2017


@dataclass(frozen=True, eq=False)
class Reliability:
    """What a reliability diagram shows; arrays [..., BINS], NaN where a bin is empty.

    Attributes
    ----------
    edges : ndarray [BINS + 1]
        Bin m holds confidences above ``edges[m]`` and up to ``edges[m + 1]``; the first also holds 0.
    counts : ndarray
        Images.
    confidence : ndarray
        Their mean predicted probability.
    frequency : ndarray
        The share of them for which the predicted event came true.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Expected calibration error [...]: mean |frequency - confidence| of the bins, weighted by their counts."""
        apart = np.nan_to_num(np.abs(self.frequency - self.confidence))
        return ratio((apart * self.counts).sum(-1), self.counts.sum(-1))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, of logits of any type; stable for large ones, NaN where a logit is NaN."""
    return _softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def reliability(confidence: np.ndarray, came_true: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of equal width of `confidence` [..., n] against whether the event `came_true` [..., n]; NaN is left out."""
    shape, n = confidence.shape[:-1], confidence.shape[-1]
    edges = np.linspace(0, 1, bins + 1)
    known = np.isfinite(confidence).reshape(-1, n)
    chance = np.where(known, confidence.reshape(-1, n), 0.0)
    place = np.clip(np.searchsorted(edges, chance, side="left") - 1, 0, bins - 1)
    flat = (np.arange(len(chance))[:, None] * bins + place)[known]

    def summed(weights: np.ndarray) -> np.ndarray:
        return np.bincount(flat, weights[known], minlength=len(chance) * bins).reshape(*shape, bins)

    counts = summed(np.ones(chance.shape))
    true = summed(np.broadcast_to(came_true, confidence.shape).reshape(-1, n).astype(float))
    return Reliability(edges, counts, ratio(summed(chance), counts), ratio(true, counts))


def top_label_reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Confidence in the predicted class against whether it was right, [S, bins]."""
    return reliability(softmax(logits).max(-1), logits.argmax(-1) == labels, bins)


def class_reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Probability of each class against how often it was the true one, [S, C, bins]."""
    classes = logits.shape[-1]
    return reliability(np.swapaxes(softmax(logits), -1, -2), labels == np.arange(classes)[:, None], bins)


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Expected calibration error (ECE) of the predicted class [S] (Naeini 2015, Guo 2017)."""
    return top_label_reliability(logits, labels, bins).error


def class_calibration_errors(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Calibration error [S, C] of the probability given to each class, over all images."""
    return class_reliability(logits, labels, bins).error


def classwise_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Classwise ECE [S]: the mean of the classes' calibration errors (Kull 2019)."""
    return class_calibration_errors(logits, labels, bins).mean(-1)


def brier(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Brier score [S]: mean over images of the squared distance to the one-hot truth summed over classes, 0 to 2."""
    truth = labels[:, None] == np.arange(logits.shape[-1])
    return mean_known(((softmax(logits) - truth) ** 2).sum(-1))


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int = 2) -> np.ndarray:
    """Share [S] of images whose true class is among the k best; of equal logits the first class is better (argmax)."""
    own = np.take_along_axis(logits, np.broadcast_to(labels, logits.shape[:-1])[..., None], -1)
    earlier = np.arange(logits.shape[-1]) < labels[:, None]
    better = ((logits > own) | ((logits == own) & earlier)).sum(-1)
    return mean_known(np.where(np.isnan(logits).any(-1), np.nan, better < k))


def auroc(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve [S, C] of each class against the rest; NaN where a side has no images.

    Images are ranked by the log-odds of the class, in the order of its probability but without that one's saturation at
    1. Ties count half, as in the Mann-Whitney statistic (Hanley, McNeil 1982).
    """
    wide = np.asarray(logits, dtype=np.float64)
    classes = wide.shape[-1]
    out = np.full((*wide.shape[:-2], classes), np.nan)
    for c in range(classes):
        odds = wide[..., c] - logsumexp(np.delete(wide, c, axis=-1), axis=-1)
        mine, known = labels == c, np.isfinite(odds)
        ranks = rankdata(odds, axis=-1, nan_policy="omit")
        inside = (known & mine).sum(-1)
        outside = (known & ~mine).sum(-1)
        above = np.where(known & mine, ranks, 0.0).sum(-1) - inside * (inside + 1) / 2
        out[..., c] = ratio(above, inside * outside)
    return out


def macro_auroc(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean [S] of the one-against-rest areas of the classes that have them."""
    return mean_known(auroc(logits, labels))
