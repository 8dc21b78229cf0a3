"""The crossed bootstrap: percentile intervals for any score and any paired difference, over seeds and images.

A draw takes seeds with replacement and, independently, test images with replacement within each class; the same images
serve all seeds and both methods. Class sizes never change: 55 images stay 55. Where every seed was trained on several
subsets of the training images, a draw takes subsets with replacement as well, independently of the seeds.

Reports show it beside the intervals of :mod:`fer_bench.stats.intervals`, but no verdict depends on it, because no
resampling scheme gets the variance of a mean over crossed seeds and images right (McCullagh 2000). This one counts the
seed-by-image part more than once (Owen 2007), understates the variance between S seeds by (S - 1) / S and, as a
percentile of few values, ignores the t-distribution. Where trainings differ much, its intervals are too short;
elsewhere they are too wide. So a difference has the p-value of the interval that reports print.

References
----------
B. Efron, R. Tibshirani (1993), An introduction to the bootstrap, chapter 13 (percentile interval).
P. McCullagh (2000), Resampling and exchangeable arrays, Bernoulli 6.
A. B. Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1.
R. Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice, NeurIPS (P(A > B)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fer_bench.rng import numpy_generator
from fer_bench.stats.confusion import SCORES, Margins, Score, ratio
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import LEVEL, Interval, score_differences
from fer_bench.stats.sampling import Stratum, Truth, paired, strata

CHUNK = 4_000_000  # resampled images held at once: 32 MB of 64-bit counts
BLOCK = 500_000  # numbers of drawn margins held at once: 2 MB


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How often to draw, and from which random stream.

    Attributes
    ----------
    number : int
        Number of draws.
    names : tuple
        Names of the random stream, after "bootstrap". Equal names give equal draws.
    """

    number: int = 2000
    names: tuple = ()


DRAWS = Draws()


@dataclass(frozen=True, eq=False)
class Replicates:
    """Scores of S trainings by name, on the test set [S] and on every draw of its images, with the draws of trainings.

    Attributes
    ----------
    values : dict
        Name to values [S] on the test set itself.
    drawn : dict
        Name to values [draws, S] on resampled images.
    shares : ndarray [draws, S]
        The share of each training in a draw; rows sum to 1.
    """

    values: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    shares: np.ndarray

    def __sub__(self, other: Replicates) -> Replicates:
        """The paired difference: training s of both sees the same draws."""
        values = {name: values - other.values[name] for name, values in self.values.items()}
        drawn = {name: values - other.drawn[name] for name, values in self.drawn.items()}
        return Replicates(values, drawn, self.shares)

    def only(self, names: Iterable[str]) -> Replicates:
        """Some of the scores."""
        return Replicates({n: self.values[n] for n in names}, {n: self.drawn[n] for n in names}, self.shares)

    def intervals(self, level: float = LEVEL) -> dict[str, Interval]:
        """Percentile intervals of the means over seeds."""
        return {name: self._interval(name, level) for name in self.values}

    def _interval(self, name: str, level: float) -> Interval:
        seeds = self.shares.shape[1]
        value = _over_seeds(self.values[name][None], np.full((1, seeds), 1 / seeds))
        return _percentile(float(value[0]), _over_seeds(self.drawn[name], self.shares), level)

    def improvements(self, other: Replicates, level: float = LEVEL) -> dict[str, Interval]:
        """:func:`probability_of_improvement` over `other`, with percentile intervals over seeds and images.

        It says how often one training beats another, not by how much. With S seeds it moves in steps of 1 / S², and
        where all of ours beat all of the other's the interval has no width: five seeds can't distinguish 1.0 from 0.9.
        """
        out = {}
        for name, values in self.values.items():
            value = probability_of_improvement(values, other.values[name])
            out[name] = _percentile(value, _won(self.drawn[name], other.drawn[name], self.shares), level)
        return out


def _won(ours: np.ndarray, reference: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weighted share [draws] of the pairs of seeds in which `ours` [draws, S] is better; a tie counts half."""
    a, b = np.ascontiguousarray(ours.T), np.ascontiguousarray(reference.T)
    weights = [np.where(np.isfinite(side), shares.T, 0.0) for side in (a, b)]
    won = np.zeros(len(shares))
    for value, weight in zip(a, weights[0], strict=True):
        twice = np.add(value > b, value >= b, dtype=np.int8)
        won += weight * (twice * weights[1]).sum(0)
    return ratio(won / 2, weights[0].sum(0) * weights[1].sum(0))


def probability_of_improvement(ours: np.ndarray, reference: np.ndarray) -> float:
    """P(A > B): the share of pairs of runs, one of each, in which ours is better; a tie counts half (Agarwal 2021).

    Every run of `ours` [S] meets every run of `reference` [T], so this is the Mann-Whitney statistic divided by S·T.
    Over several data sets Agarwal et al. take the mean. NaN runs are left out; NaN where none is left.
    """
    a, b = ours[np.isfinite(ours)], reference[np.isfinite(reference)]
    return float((np.sign(a[:, None] - b) + 1).mean() / 2) if len(a) and len(b) else float("nan")


def replicates(
    truth: Truth,
    predictions: np.ndarray,
    scores: Mapping[str, Score] = SCORES,
    draws: Draws = DRAWS,
    subsets: np.ndarray | None = None,
) -> Replicates:
    """Resample a method's seeds, subsets and images; :meth:`Replicates.intervals` gives the percentile intervals.

    Draws depend only on the test set, the number of seeds and `draws`. So the replicates of two methods may be
    subtracted if their seeds are in the same order and the same images are unseen: :func:`bootstrap_difference`.

    Parameters
    ----------
    truth : Truth
        The test set, whose sampling units are drawn with replacement within each stratum.
    predictions : ndarray [S, n]
        Predicted classes, one row per seed; -1 where a seed has not seen an image (a missing fold).
    scores : mapping
        Name to function of a stack of matrices, or of their margins, giving [...].
    subsets : int ndarray [S], optional
        The subset of the training images of each row, which must be in the order of subsets and then of seeds, the same
        seeds for every subset.
    """
    parts = list(strata(truth, predictions))
    number = 1 if subsets is None else len(np.unique(subsets))
    shares, counts = _resampling(tuple(part.size for part in parts), len(predictions), draws, number)
    full = Margins.count(truth.labels, predictions, truth.classes)
    drawn = {name: np.empty_like(shares, dtype=np.float32) for name in scores}
    start = 0
    for margins in _drawn_margins(parts, counts, draws.number):
        size = len(margins.support)
        for name, score in scores.items():
            drawn[name][start : start + size] = score(margins)
        start += size
    return Replicates({name: score(full) for name, score in scores.items()}, drawn, shares)


def bootstrap_difference(
    truth: Truth,
    ours: np.ndarray,
    reference: np.ndarray,
    scores: Mapping[str, Score] = SCORES,
    draws: Draws = DRAWS,
    level: float = LEVEL,
    subsets: np.ndarray | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of the paired difference `ours` minus `reference`, predictions [S, n] of the same seeds.

    An image that one side has not seen (-1) is left out of that seed on both sides. Other parameters as in
    :func:`replicates`.

    The p-values are those of the intervals that reports print (:func:`fer_bench.stats.intervals.score_differences`), so
    that a difference has one verdict; they need not agree with the percentile intervals. A percentile's own p-value
    would be wrong for few seeds that differ much (docs/results/coverage.md), and could not fall below 2 / (draws + 1),
    which a correction multiplies by the number of comparisons.
    """
    sides = paired(ours, reference)
    a, b = (replicates(truth, side, scores, draws, subsets) for side in sides)
    exact, other = (jackknife(truth, side, scores, subsets) for side in sides)
    tests = score_differences(exact, other, level)
    return {name: replace(interval, p=tests[name].p) for name, interval in (a - b).intervals(level).items()}


@lru_cache(maxsize=2)
def _resampling(
    sizes: tuple[int, ...], trainings: int, draws: Draws, subsets: int = 1
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Shares of the trainings [draws, S], and how often each unit of each stratum is drawn.

    They are the same for all methods of a study, so they are drawn once and kept while its methods are compared.
    """
    rng = numpy_generator(0, "bootstrap", *draws.names)
    seeds = trainings // subsets
    shares = _shares(rng, seeds, draws.number)
    if subsets > 1:
        shares = (_shares(rng, subsets, draws.number)[:, :, None] * shares[:, None]).reshape(draws.number, -1)
    shares = np.asfortranarray(shares)
    return shares, tuple(_counts(rng, n, draws.number) for n in sizes)


def _shares(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """The share of each of `n` seeds or subsets, drawn with replacement, in each of the draws [draws, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n


def _counts(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """How often each of `n` units is drawn in each of the draws, [draws, n], in the smallest type that holds `n`."""
    out = np.empty((draws, n), np.min_scalar_type(n))
    step = max(1, CHUNK // n)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picks = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        out[start : start + size] = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
    return out


def _drawn_margins(parts: Sequence[Stratum], counts: Sequence[np.ndarray], draws: int) -> Iterator[Margins]:
    """Margins [d, R, C] of some draws at a time, from how often each unit of each stratum was drawn.

    One matrix product per stratum turns the counts of units into margins. In memory the draws are the innermost axis,
    so that scores work on long rows; and counts are 32-bit floats, which hold whole numbers up to 16 million, since a
    bootstrap is bound by the speed of memory.
    """
    classes, runs = parts[0].classes, len(parts[0].predictions)
    step = max(1, BLOCK // (3 * runs * classes))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        out = np.zeros((3 * classes * runs, size), np.float32)
        for part, drawn in zip(parts, counts, strict=True):
            rows, units = part.sparse_contributions
            out[rows] += units @ drawn[start : start + size].T.astype(np.float32)  # exact: sums of small integers
        yield Margins(*out.reshape(3, classes, runs, size).transpose(0, 3, 2, 1))


def _over_seeds(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weighted mean over the seeds in which the score is known: [draws, S] -> [draws]."""
    known = np.isfinite(values)
    return ratio((np.where(known, values, 0.0) * shares).sum(1), (shares * known).sum(1))


def _percentile(value: float, sample: np.ndarray, level: float) -> Interval:
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return Interval(value, float("nan"), float("nan"))
    # Rounded, so that a difference of zero is zero whatever the order of the sums.
    low, high = np.round(np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2]), 12)
    return Interval(value, float(low), float(high))
