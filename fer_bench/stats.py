"""Intervals for small classes and few seeds: Wilson's score interval, the crossed bootstrap, Holm's correction.

Everything works on confusion matrices, so one resampling serves every metric. No module here imports torch.

The bootstrap is crossed: a draw takes seeds with replacement and, independently, test images with replacement within
each class; the same images serve every seed and both methods. Class sizes never change: 55 images stay 55. Crossed
resampling counts the seed-by-image part of the variance more than once (Owen 2007), which errs on the safe side.
Resampling S seeds understates the spread between seeds by (S - 1) / S, which does not: reports ask for five.

References
----------
E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
B. Efron, R. Tibshirani (1993), An introduction to the bootstrap, chapter 13 (percentile interval).
A. B. Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1.
S. Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import ndtri

from fer_bench.rng import numpy_generator

DRAWS = 2000
LEVEL = 0.95
CHUNK = 4_000_000  # resampled images held at once: 32 MB of 64-bit counts

Stacked = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A value with its interval; all are shares, not percent.

    `p` is the two-sided bootstrap p-value against zero; NaN where the value is no difference.
    """

    value: float
    low: float
    high: float
    p: float = float("nan")

    def covers(self, value: float = 0.0) -> bool:
        """Whether `value` lies in the interval, ends included."""
        return self.low <= value <= self.high

    @property
    def known(self) -> bool:
        """Whether there was anything to compute it from."""
        return bool(np.isfinite([self.value, self.low, self.high]).all())


def wilson(hits: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share of `n` images.

    For a recall averaged over seeds pass ``hits`` = mean number of hits and ``n`` = size of the class. The images are
    the same for every seed, so pooling S·n trials would pretend to S times the images. The result covers the sampling
    of images and not the spread between seeds.

    Parameters
    ----------
    hits : float
        Number of hits, 0 to `n`; a mean over seeds may be fractional.
    n : int
        Number of images; 0 gives an interval of NaN.

    References
    ----------
    Wilson (1927); Brown, Cai, DasGupta (2001), Interval estimation for a binomial proportion, Statistical Science 16.
    """
    if n <= 0 or not np.isfinite(hits):
        return Interval(float("nan"), float("nan"), float("nan"))
    z = float(ndtri(0.5 + level / 2))
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, in the order given; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=-2, axis2=-1)


def _mean_known(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def recalls(matrices: np.ndarray) -> np.ndarray:
    """Recalls [..., C] of a stack of confusion matrices [..., C, C]."""
    return _ratio(_diagonal(matrices), matrices.sum(-1))


def accuracy(matrices: np.ndarray) -> np.ndarray:
    """Accuracies [...] of a stack of confusion matrices."""
    return _ratio(_diagonal(matrices).sum(-1), matrices.sum((-2, -1)))


def mean_recall(matrices: np.ndarray) -> np.ndarray:
    """Mean-class accuracies [...] of a stack of confusion matrices."""
    return _mean_known(recalls(matrices))


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Macro-F1 [...] of a stack of confusion matrices."""
    return _mean_known(_ratio(2 * _diagonal(matrices), matrices.sum(-1) + matrices.sum(-2)))


def recall_of(index: int) -> Stacked:
    """The metric "recall of class `index`", for stacks of confusion matrices."""
    return partial(_recall_of, index=index)


def _recall_of(matrices: np.ndarray, index: int) -> np.ndarray:
    return _ratio(matrices[..., index, index], matrices[..., index, :].sum(-1))


STACKED: dict[str, Stacked] = {"accuracy": accuracy, "mean_recall": mean_recall, "macro_f1": macro_f1}
"""The scores of :data:`fer_bench.metrics.SCORES`, for stacks of matrices."""


def confusions(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrices [R, C, C] of `predictions` [R, n]; an image predicted -1 (not seen by a run) is left out."""
    flat = np.where(predictions >= 0, labels * classes + predictions, classes**2).astype(np.int64)
    matrices = [np.bincount(row, minlength=classes**2 + 1)[:-1] for row in flat]
    return np.asarray(matrices, dtype=float).reshape(-1, classes, classes)


def resampled_confusions(
    labels: np.ndarray, predictions: np.ndarray, classes: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Confusion matrices under resampled images, [draws, R, C, C].

    Images are drawn with replacement within each class, the same ones for all R runs. One matrix product a class turns
    "how often was each image drawn" into "how often was each class predicted".
    """
    out = np.zeros((draws, len(predictions), classes, classes))
    for label in np.unique(labels):
        mine = predictions[:, labels == label]
        n = mine.shape[1]
        onehot = (mine.T[:, :, None] == np.arange(classes)).reshape(n, -1).astype(np.float32)
        step = max(1, CHUNK // n)
        for start in range(0, draws, step):
            size = min(step, draws - start)
            picks = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
            drawn = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
            rows = drawn.astype(np.float32) @ onehot  # exact: sums of small integers
            out[start : start + size, :, int(label)] = rows.reshape(size, len(predictions), classes)
    return out


def bootstrap(
    labels: np.ndarray,
    predictions: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    draws: int = DRAWS,
    level: float = LEVEL,
    names: tuple = (),
) -> dict[str, Interval]:
    """Percentile intervals of metrics averaged over seeds, by resampling seeds and images.

    Parameters
    ----------
    labels : ndarray [n]
        True classes of the test images.
    predictions : ndarray [S, n]
        Predicted classes, one row a seed; -1 where a seed has not seen an image (a missing fold).
    metrics : mapping, optional
        Name to function of a stack of matrices [..., C, C] giving [...]; by default :data:`STACKED`.
    classes : int
        Number of classes C.
    names : tuple
        Names of the random stream, after "bootstrap".
    """
    return _crossed(labels, predictions[None], np.array([1.0]), metrics, classes, draws, level, names)


def bootstrap_difference(
    labels: np.ndarray,
    ours: np.ndarray,
    reference: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    draws: int = DRAWS,
    level: float = LEVEL,
    names: tuple = (),
) -> dict[str, Interval]:
    """Intervals of `ours` minus `reference`, paired: row s of both is one seed, and every draw shares seeds and images.

    Both arrays are [S, n]. An image that one side has not seen (-1) is left out of that seed on both sides.
    Other parameters as in :func:`bootstrap`.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"paired predictions must have one shape, not {ours.shape} and {reference.shape}")
    pair = np.where((ours < 0) | (reference < 0), -1, np.stack([ours, reference]))
    return _crossed(labels, pair, np.array([1.0, -1.0]), metrics, classes, draws, level, names)


def _crossed(labels, stack, contrast, metrics, classes, draws, level, names) -> dict[str, Interval]:
    """Intervals of the contrast over the first axis of `stack` [G, S, n]."""
    metrics = STACKED if metrics is None else metrics
    groups, seeds, n = stack.shape
    rng = numpy_generator(0, "bootstrap", *names)
    shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    runs = stack.reshape(groups * seeds, n)
    seen = confusions(labels, runs, classes).reshape(1, groups, seeds, classes, classes)
    drawn = resampled_confusions(labels, runs, classes, draws, rng).reshape(draws, groups, seeds, classes, classes)
    out = {}
    for name, metric in metrics.items():
        value = _over_seeds(np.tensordot(contrast, metric(seen), (0, 1)), np.full((1, seeds), 1 / seeds))
        sample = _over_seeds(np.tensordot(contrast, metric(drawn), (0, 1)), shares)
        out[name] = _percentile(float(value[0]), sample, level, difference=groups > 1)
    return out


def _over_seeds(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weighted mean over the seeds in which the metric is known: [draws, S] -> [draws]."""
    known = np.isfinite(values)
    return _ratio((np.where(known, values, 0.0) * shares).sum(1), (shares * known).sum(1))


def _percentile(value: float, sample: np.ndarray, level: float, *, difference: bool) -> Interval:
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return Interval(value, float("nan"), float("nan"))
    # Rounded, so that a difference of zero is zero whatever the order of the sums.
    low, high = np.round(np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2]), 12)
    if not difference:
        return Interval(value, float(low), float(high))
    sample = np.round(sample, 12)
    tail = min((sample <= 0).sum(), (sample >= 0).sum())
    return Interval(value, float(low), float(high), min(1.0, 2 * (1 + int(tail)) / (1 + len(sample))))
