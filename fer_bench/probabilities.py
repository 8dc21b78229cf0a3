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
    """Probabilities, float64, of logits of any type; stable for large ones, NaN where a logit is NaN.

    In memory the classes are the outermost axis, so that sums over them work on long rows.
    """
    wide = _by_class(logits)
    chances = np.exp(wide - wide.max(0))
    chances /= chances.sum(0)
    return np.moveaxis(chances, 0, -1)


def _by_class(logits: np.ndarray) -> np.ndarray:
    """Logits [..., C] as float64 [C, ...], contiguous."""
    return np.ascontiguousarray(np.moveaxis(logits, -1, 0), dtype=np.float64)


def reliability(confidence: np.ndarray, came_true: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of equal width of `confidence` [..., n] against whether the event `came_true` [..., n]; NaN is left out."""
    shape, n = confidence.shape[:-1], confidence.shape[-1]
    edges = np.linspace(0, 1, bins + 1)
    rows, truths = confidence.reshape(-1, n), np.broadcast_to(came_true, confidence.shape).reshape(-1, n)
    counts, chance, true = (np.zeros((len(rows), bins)) for _ in range(3))
    for row, (chances, truth) in enumerate(zip(rows, truths, strict=True)):
        known = np.isfinite(chances)
        place = np.maximum(np.searchsorted(edges, chances[known], side="left") - 1, 0)
        counts[row] = np.bincount(place, minlength=bins)
        chance[row] = np.bincount(place, chances[known], minlength=bins)
        true[row] = np.bincount(place, truth[known], minlength=bins)
    counts, chance, true = (a.reshape(*shape, bins) for a in (counts, chance, true))
    return Reliability(edges, counts, ratio(chance, counts), ratio(true, counts))


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
    odds = _log_odds(_by_class(logits))
    out = np.full((*odds.shape[1:-1], len(odds)), np.nan)
    for c, chances in enumerate(odds):
        mine = labels == c
        for place in np.ndindex(chances.shape[:-1]):
            out[(*place, c)] = _above(chances[place][mine], chances[place][~mine])
    return out


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each class against all others, from logits [C, ...].

    The others are scaled by the largest of them, so nothing saturates: that is the largest of all for every class but
    the best, and the second best for that one.
    """
    first = np.expand_dims(logits.argmax(0), 0)
    rest = logits.copy()
    np.put_along_axis(rest, first, -np.inf, axis=0)
    second = rest.max(0)
    others = _sums_of_others(np.exp(logits - logits.max(0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = logits - logits.max(0) - np.log(others)
        best = np.take_along_axis(logits, first, 0)[0] - second - np.log(np.exp(rest - second).sum(0))
    np.put_along_axis(odds, first, best[None], axis=0)
    return odds


def _sums_of_others(values: np.ndarray) -> np.ndarray:
    """For each class the sum of the values [C, ...] of all others, by addition alone."""
    before, after = np.zeros_like(values), np.zeros_like(values)
    np.cumsum(values[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumsum(values[:0:-1], axis=0)[::-1]
    return before + after


def _above(ours: np.ndarray, others: np.ndarray) -> float:
    """Share of the pairs in which one of ours is larger than one of the others; ties count half, NaN is left out."""
    ours, others = (np.sort(side[np.isfinite(side)]) for side in (ours, others))
    if not len(ours) or not len(others):
        return float("nan")
    below = np.searchsorted(others, ours, "left").sum() + np.searchsorted(others, ours, "right").sum()
    return float(below / 2 / (len(ours) * len(others)))


def macro_auroc(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean [S] of the one-against-rest areas of the classes that have them."""
    return mean_known(auroc(logits, labels))
