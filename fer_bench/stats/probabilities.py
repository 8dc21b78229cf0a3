"""Scores of probabilities and logits rather than of predicted classes: calibration, ranking, top-k accuracy.

Every function takes `probs` (probabilities) or `logits` [S, n, C] of S seeds and `labels` [n]. An image that a seed has
not seen has NaN there and is left out of that seed. Probabilities are float64, whatever the type of the logits. All
functions are fastest where the classes are the outermost axis in memory, as :func:`softmax` returns them.

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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer_bench.stats.confusion import mean_known, ratio

BINS = 15  # Guo et al. 2017
ROWS_TOGETHER = 8  # rows binned at once: enough to work in NumPy, few enough for the processor's cache
SMALLEST = 1e-290  # below it float64 loses digits, at the latest


@dataclass(frozen=True, eq=False)
class Reliability:
    """The content of a reliability diagram; arrays [..., BINS], NaN where a bin is empty.

    Attributes
    ----------
    edges : ndarray [BINS + 1]
        Bin m holds confidences above ``edges[m]`` and up to ``edges[m + 1]``; the first also holds 0.
    counts : ndarray
        Images in each bin.
    confidence : ndarray
        Their mean predicted probability.
    frequency : ndarray
        The share of them for which the event occurred.
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

    def pooled(self) -> Reliability:
        """All seeds together, summed over the first axis."""
        counts = self.counts.sum(0)
        confidence, frequency = (
            ratio(np.nan_to_num(of * self.counts).sum(0), counts) for of in (self.confidence, self.frequency)
        )
        return Reliability(self.edges, counts, confidence, frequency)


def joined(parts: Sequence[Reliability]) -> Reliability:
    """Concatenate the diagrams of several sets of seeds."""
    arrays = (np.concatenate([getattr(p, name) for p in parts]) for name in ("counts", "confidence", "frequency"))
    return Reliability(parts[0].edges, *arrays)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, of logits of any type; stable for large logits, NaN where a logit is NaN."""
    probs = _by_class(logits).astype(np.float64)
    for seed in np.ndindex(probs.shape[1:-1]):  # one at a time stays in the processor's cache
        of = probs[(slice(None), *seed)]
        of -= of.max(0)
        np.exp(of, out=of)
        of /= of.sum(0)
    return np.moveaxis(probs, 0, -1)


def _by_class(values: np.ndarray) -> np.ndarray:
    """Logits or probabilities [..., C] as [C, ...], contiguous."""
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def reliability(confidence: np.ndarray, occurred: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of equal width of `confidence` [..., n] against whether the event `occurred` [..., n]; NaN is left out."""
    shape, n = confidence.shape[:-1], confidence.shape[-1]
    edges = np.linspace(0, 1, bins + 1)
    rows, truths = confidence.reshape(-1, n), np.broadcast_to(occurred, confidence.shape).reshape(-1, n)
    counts, probability_sum, events = (np.zeros((len(rows), bins)) for _ in range(3))
    for start in range(0, len(rows), ROWS_TOGETHER):
        some = slice(start, start + ROWS_TOGETHER)
        probs, truth = rows[some], truths[some]
        size = len(probs) * bins
        first = np.broadcast_to(bins * np.arange(len(probs))[:, None], probs.shape)
        known = np.isfinite(probs)
        if not known.all():
            probs, truth, first = probs[known], truth[known], first[known]
        place = (_bin_of(probs, edges) + first).ravel()
        counts[some] = np.bincount(place, minlength=size).reshape(-1, bins)
        probability_sum[some] = np.bincount(place, probs.ravel(), minlength=size).reshape(-1, bins)
        events[some] = np.bincount(place[truth.ravel()], minlength=size).reshape(-1, bins)
    counts, probability_sum, events = (a.reshape(*shape, bins) for a in (counts, probability_sum, events))
    return Reliability(edges, counts, ratio(probability_sum, counts), ratio(events, counts))


def _bin_of(probs: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each probability: a guess by division, corrected where rounding or an edge makes it miss by one."""
    last = len(edges) - 2
    bins = (probs * (last + 1)).astype(np.intp)
    _limit(bins, last)
    bins -= probs <= edges.take(bins)
    bins += probs > edges.take(bins + 1)
    _limit(bins, last)
    return bins


def _limit(places: np.ndarray, last: int) -> None:
    """Clip in place to 0 and `last`; np.clip takes longer on a short array."""
    np.maximum(places, 0, out=places)
    np.minimum(places, last, out=places)


def top_label_reliability(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Probability of the most probable class (the first of equal ones) against whether it is correct, [S, bins]."""
    wide = _by_class(probs)
    best = wide.max(0)
    right = np.take_along_axis(wide, np.broadcast_to(labels, best.shape)[None], 0)[0] == best
    for c, of in enumerate(wide):
        right &= (of != best) | (labels <= c)  # no earlier class is as probable; argmax would take twice the time
    return reliability(best, right, bins)


def class_reliability(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Probability of each class against how often it is the true one, [S, C, bins]."""
    classes = probs.shape[-1]
    return reliability(np.swapaxes(probs, -1, -2), labels == np.arange(classes)[:, None], bins)


def calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Expected calibration error (ECE) of the most probable class [S] (Naeini 2015, Guo 2017)."""
    return top_label_reliability(probs, labels, bins).error


def class_calibration_errors(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Calibration error [S, C] of the predicted probability of each class, over all images."""
    return class_reliability(probs, labels, bins).error


def classwise_calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Classwise ECE [S]: the mean of the classes' calibration errors (Kull 2019)."""
    return class_calibration_errors(probs, labels, bins).mean(-1)


def brier(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Brier score [S]: mean over images of the squared distance to the one-hot truth summed over classes, 0 to 2."""
    distance = np.zeros(probs.shape[:-1])
    for c, of in enumerate(_by_class(probs)):
        distance += (of - (labels == c)) ** 2
    return mean_known(distance)


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int = 2) -> np.ndarray:
    """Share [S] of images whose true class has one of the k highest logits; the first class wins ties, as in argmax."""
    wide = _by_class(logits)
    own = np.take_along_axis(wide, np.broadcast_to(labels, wide.shape[1:])[None], 0)[0]
    better, unseen = np.zeros(own.shape, np.int16), np.zeros(own.shape, bool)
    for c, of in enumerate(wide):
        better += np.where(labels > c, of >= own, of > own)
        unseen |= np.isnan(of)
    return mean_known(np.where(unseen, np.nan, better < k))


def auroc(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve [S, C] of each class against the rest; NaN where a side has no images.

    Images are ranked by the log-odds of the class: the same order as by its probability, but without saturation at 1.
    Ties count half, as in the Mann-Whitney statistic (Hanley, McNeil 1982).
    """
    wide = _by_class(logits)
    seeds, classes = wide.shape[1:-1], len(wide)
    out = np.full((*seeds, classes), np.nan)
    for seed in np.ndindex(seeds):  # one at a time stays in the processor's cache
        odds = log_odds(wide[(slice(None), *seed)].astype(np.float64))
        for c, of in enumerate(odds):
            own = labels == c
            out[(*seed, c)] = _above(of[own], of[~own])
    return out


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each class against all others, from logits [C, n].

    The probabilities of the others are summed instead of taking 1 - p, so that nothing saturates. Where they vanish
    beside the best class, they are scaled by the largest of them instead of the largest of all.
    """
    below = logits - logits.max(0)
    others = _sums_of_others(np.exp(below))
    with np.errstate(divide="ignore"):
        odds = below - np.log(others)
    for image in np.flatnonzero(others.min(0) < SMALLEST):
        best = logits[:, image].argmax()
        rest = np.delete(logits[:, image], best)
        odds[best, image] = logits[best, image] - rest.max() - np.log(np.exp(rest - rest.max()).sum())
    return odds


def _sums_of_others(values: np.ndarray) -> np.ndarray:
    """For each class the sum of the values [C, n] of all others, without subtraction."""
    out = np.zeros_like(values)
    for classes in (range(len(values)), reversed(range(len(values)))):
        passed = np.zeros_like(values[0])
        for c in classes:
            out[c] += passed
            passed += values[c]
    return out


def _above(ours: np.ndarray, others: np.ndarray) -> float:
    """Share of pairs in which ours is larger than the other; ties count half, NaN is left out."""
    ours, others = np.sort(_finite(ours)), np.sort(_finite(others))
    if not len(ours) or not len(others):
        return float("nan")
    below = np.searchsorted(others, ours, "left")
    tied = others.take(below, mode="clip") == ours
    up_to = np.searchsorted(others, ours, "right") if tied.any() else below
    return float((below.sum() + up_to.sum()) / 2 / (len(ours) * len(others)))


def _finite(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return values if known.all() else values[known]


def macro_auroc(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean one-against-rest area [S] of the classes that have one."""
    return mean_known(auroc(logits, labels))
