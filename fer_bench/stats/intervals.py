"""Intervals for small classes and few seeds, and the crossed bootstrap; Holm's correction.

Everything works on confusion matrices, so one pass serves every metric. No module here imports torch.

Reports show :func:`score_intervals` and :func:`score_differences`: Wilson's interval with the number of images that
would explain the spread seen over seeds and images (:mod:`fer_bench.stats.crossed_errors`), and Newcombe's interval of
a difference, which is made of two such. Neither leaves 0 to 1, and both keep their level from two seeds and a few dozen
images on (docs/results/coverage.md). Beside them stands the bootstrap, for any metric and any difference.

The bootstrap is crossed: a draw takes seeds with replacement and, independently, test images with replacement within
each class; the same images serve every seed and both methods. Class sizes never change: 55 images stay 55. No scheme of
resampling gets the variance of a mean over crossed seeds and images right (McCullagh 2000). This one counts the
seed-by-image part more than once (Owen 2007), understates the spread between S seeds by (S - 1) / S and, being a
percentile of few values, knows no t-distribution: where seeds differ a lot its intervals are too short, elsewhere too
wide. So the p-value of a difference is that of the crossed t-test.

References
----------
E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
E. Korn, B. Graubard (1998), Confidence intervals for proportions with small expected number of positive counts
estimated from survey data, Survey Methodology 24 (effective number of images, t instead of z).
R. Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired data,
Statistics in Medicine 17 (method 8); G. Zou, A. Donner (2008), Statistics in Medicine 27, for what it needs.
B. Efron, R. Tibshirani (1993), An introduction to the bootstrap, chapter 13 (percentile interval).
P. McCullagh (2000), Resampling and exchangeable arrays, Bernoulli 6.
A. B. Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1.
R. Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice, NeurIPS (P(A > B)).
S. Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import ndtri, stdtrit

from fer_bench.rng import numpy_generator
from fer_bench.stats.confusion import (
    STACKED,
    Margins,
    Stacked,
    Stratum,
    confusions,
    paired,
    ratio,
    recall_of,
    recalls,
    strata,
)
from fer_bench.stats.crossed_errors import Estimate, Jackknife, jackknife

__all__ = [
    "DRAWS",
    "LEVEL",
    "STACKED",
    "Interval",
    "Jackknife",
    "Replicates",
    "Stacked",
    "bootstrap",
    "bootstrap_difference",
    "bootstrap_improvement",
    "confusions",
    "crossed",
    "crossed_difference",
    "holm",
    "images_of",
    "jackknife",
    "paired",
    "probability_of_improvement",
    "recall_of",
    "recalls",
    "replicates",
    "resampled",
    "score_differences",
    "score_intervals",
    "wilson",
]

DRAWS = 2000
LEVEL = 0.95
CHUNK = 4_000_000  # resampled images held at once: 32 MB of 64-bit counts
BLOCK = 500_000  # numbers of drawn margins held at once: 2 MB


@dataclass(frozen=True)
class Interval:
    """A value with its interval; all are shares, not percent.

    `p` is the two-sided p-value of a difference against zero; NaN where the value is no difference, and where neither
    images nor seeds vary, so that nothing tells chance from truth.
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


def wilson(hits: float, n: float, level: float = LEVEL, freedom: float = np.inf) -> Interval:
    """Wilson's score interval of a share of `n` images.

    Parameters
    ----------
    hits : float
        Number of hits, 0 to `n`.
    n : float
        Number of images, or the number that would explain a variance (:func:`score_intervals`); 0 gives NaN.
    freedom : float
        Degrees of freedom of the t-distribution that stands for the normal one where the variance behind `n` is an
        estimate.

    References
    ----------
    Wilson (1927); Brown, Cai, DasGupta (2001), Interval estimation for a binomial proportion, Statistical Science 16.
    """
    if not n > 0 or not np.isfinite(hits):
        return Interval(float("nan"), float("nan"), float("nan"))
    z = float(ndtri(0.5 + level / 2) if np.isinf(freedom) else stdtrit(freedom, 0.5 + level / 2))
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def score_intervals(sample: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """Intervals of metrics between 0 and 1, averaged over seeds: Wilson's with an effective number of images.

    One training tested on n images has the variance p (1 - p) / (n - 1); so with p the mean over seeds and V its
    crossed variance, n = 1 + p (1 - p) / V images would leave p as uncertain as it is. They are more than those of a
    class where seeds err on different images, fewer where seeds differ as wholes. The t-distribution has the degrees of
    freedom of V. Where nothing varies, as when all answers are right or all are one class, n is the number of images
    that the metric rests on (:attr:`fer_bench.stats.crossed_errors.Jackknife.least`): of a class for its recall, all
    for accuracy.

    The recall of one seed, whose images are drawn one by one, has Wilson's own interval: nothing is said of other
    trainings.
    """
    return {name: _score_interval(sample, name, level) for name in sample.seen}


def _score_interval(sample: Jackknife, name: str, level: float, freedom: float | None = None) -> Interval:
    """Wilson's interval of one metric; `freedom` stands for the degrees of freedom of its own variance if given."""
    estimate = sample.estimates[name]
    share, (images, varies) = estimate.value, images_of(sample, name)
    known = not varies or (sample.single and len(sample.seen[name]) == 1)  # the share alone tells its variance
    own = estimate.freedom if freedom is None else freedom
    return wilson(share * images, images, level, np.inf if known else own)


def images_of(sample: Jackknife, name: str) -> tuple[float, bool]:
    """The images of one training that would leave a metric as uncertain as it is, and whether it varies at all."""
    estimate = sample.estimates[name]
    share, variance = estimate.value, estimate.error**2
    varies = variance > 0 and 0 < share < 1
    return (1 + share * (1 - share) / variance if varies else sample.least[name]), varies


def score_differences(ours: Jackknife, reference: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """Intervals of `ours` minus `reference`, paired by seed and image, with the p-values of the crossed t-test.

    The limits are Newcombe's: those of both sides from :func:`score_intervals`, joined with the correlation r of the
    two means. With a and b what lies between a mean and its limit on the side that counts,

        value -+ sqrt(a² - 2 r a b + b²),   r = (V_ours + V_reference - V_difference) / (2 sqrt(V_ours V_reference))

    For one seed r is the phi coefficient and this is his method 8. With several, both sides have the degrees of freedom
    of V_difference: what they owe to the same images cancels, and few trainings must tell what is left. In doubt is the
    spread of trainings beyond what images explain, of the differences or of both sides, whichever is more, but never
    more than all of V_difference. Two sides without a difference in their answers still have a width, since other
    images might show one; where one side does not vary, r is 0.

    Both must have been measured on the same images with the same seeds in the same order; p is NaN where nothing
    varies.
    """
    apart = (ours - reference).estimates
    return {name: _joined(ours, reference, name, apart[name], level) for name in ours.seen}


def _joined(ours: Jackknife, reference: Jackknife, name: str, difference: Estimate, level: float) -> Interval:
    """Newcombe's interval of a difference from the intervals of its sides."""
    sides = [side.estimates[name] for side in (ours, reference)]
    excess = max(difference.excess, math.hypot(*(side.excess for side in sides)))
    freedom = difference.freedom_for(min(excess, difference.seeds + difference.images))
    a, b = (_score_interval(side, name, level, freedom) for side in (ours, reference))
    both = sides[0].error * sides[1].error
    r = (sides[0].error ** 2 + sides[1].error ** 2 - difference.error**2) / (2 * both) if both > 0 else 0.0
    r = min(max(r, -1.0), 1.0)

    def reach(near: float, far: float) -> float:
        return max(near**2 - 2 * r * near * far + far**2, 0.0) ** 0.5

    low = difference.value - reach(a.value - a.low, b.high - b.value)
    high = difference.value + reach(a.high - a.value, b.value - b.low)
    ours_alone, reference_alone = (_score_interval(side, name, level) for side in (ours, reference))
    low = max(low, ours_alone.low - reference_alone.high)
    high = min(high, ours_alone.high - reference_alone.low)
    return Interval(difference.value, min(low, difference.value), max(high, difference.value), difference.p)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, in the order given; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted


def resampled(
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: int,
    draws: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> Margins:
    """Margins of confusion matrices under resampled images, [draws, R, C].

    Units are drawn with replacement within each stratum (:func:`fer_bench.stats.confusion.strata`: images within
    classes, unless `clusters` are given), the same ones for all R runs. One matrix product a stratum turns "how often
    was each unit drawn" into "how often was each class true, answered, and both".
    """
    parts = list(strata(labels, predictions, classes, clusters))
    found = list(_weighted(parts, [_counts(rng, part.size, draws) for part in parts], draws))
    return Margins(*(np.concatenate([getattr(m, name) for m in found]) for name in ("right", "true", "answered")))


def _counts(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """How often each of `n` units is drawn in each of the draws, [draws, n], in the smallest type that holds `n`."""
    out = np.empty((draws, n), np.min_scalar_type(n))
    step = max(1, CHUNK // n)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picks = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        out[start : start + size] = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
    return out


def _weighted(parts: Sequence[Stratum], counts: Sequence[np.ndarray], draws: int) -> Iterator[Margins]:
    """Margins [d, R, C] of some draws at a time, from how often each unit of each stratum was drawn.

    In memory the draws are the innermost axis, so that metrics work on long rows; and counts are 32-bit floats, which
    hold whole numbers up to 16 million, since a bootstrap is bound by how fast memory is read.
    """
    classes, runs = parts[0].classes, len(parts[0].predictions)
    step = max(1, BLOCK // (3 * runs * classes))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        out = np.zeros((3 * classes * runs, size), np.float32)
        for part, drawn in zip(parts, counts, strict=True):
            rows, units = part.cells
            out[rows] += units @ drawn[start : start + size].T.astype(np.float32)  # exact: sums of small integers
        yield Margins(*out.reshape(3, classes, runs, size).transpose(0, 3, 2, 1))


@lru_cache(maxsize=2)
def _resampling(sizes: tuple[int, ...], seeds: int, draws: int, names: tuple) -> tuple[np.ndarray, tuple]:
    """Shares of the seeds [draws, S], and how often each unit of each stratum is drawn.

    They are the same for all methods of a study, so they are drawn once and kept while its methods are compared.
    """
    rng = numpy_generator(0, "bootstrap", *names)
    shares = np.asfortranarray(rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds)
    return shares, tuple(_counts(rng, n, draws) for n in sizes)


@dataclass(frozen=True, eq=False)
class Replicates:
    """Metrics of S seeds by name, as seen [S] and on every draw of images [draws, S], with the draws of seeds.

    Attributes
    ----------
    shares : ndarray [draws, S]
        How much of a draw each seed is; rows sum to 1.
    """

    seen: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    shares: np.ndarray

    def __sub__(self, other: Replicates) -> Replicates:
        """The paired difference: seed s of both sees the same draws."""
        seen = {name: values - other.seen[name] for name, values in self.seen.items()}
        return Replicates(seen, {name: values - other.drawn[name] for name, values in self.drawn.items()}, self.shares)

    def only(self, names: Iterable[str]) -> Replicates:
        """Some of the metrics."""
        return Replicates({n: self.seen[n] for n in names}, {n: self.drawn[n] for n in names}, self.shares)

    def intervals(self, level: float = LEVEL) -> dict[str, Interval]:
        """Percentile intervals of the means over seeds."""
        return {name: self._interval(name, level) for name in self.seen}

    def _interval(self, name: str, level: float) -> Interval:
        seeds = self.shares.shape[1]
        value = _over_seeds(self.seen[name][None], np.full((1, seeds), 1 / seeds))
        return _percentile(float(value[0]), _over_seeds(self.drawn[name], self.shares), level)

    def improvements(self, other: Replicates, level: float = LEVEL) -> dict[str, Interval]:
        """:func:`probability_of_improvement` over `other`, with percentile intervals."""
        out = {}
        for name, seen in self.seen.items():
            value = probability_of_improvement(seen, other.seen[name])
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


def replicates(
    labels: np.ndarray,
    predictions: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    draws: int = DRAWS,
    names: tuple = (),
    clusters: np.ndarray | None = None,
) -> Replicates:
    """What :func:`bootstrap` takes its intervals from; parameters as there.

    Draws depend on the labels, the clusters, the number of seeds and the names alone. So the replicates of two methods
    with seeds in the same order, and the same images unseen, may be subtracted: that is :func:`bootstrap_difference`.
    """
    metrics = STACKED if metrics is None else metrics
    parts = list(strata(labels, predictions, classes, clusters))
    shares, counts = _resampling(tuple(part.size for part in parts), len(predictions), draws, tuple(names))
    seen = Margins.counted(labels, predictions, classes)
    drawn = {name: np.empty_like(shares, dtype=np.float32) for name in metrics}
    start = 0
    for margins in _weighted(parts, counts, draws):
        size = len(margins.true)
        for name, metric in metrics.items():
            drawn[name][start : start + size] = metric(margins)
        start += size
    return Replicates({name: metric(seen) for name, metric in metrics.items()}, drawn, shares)


def bootstrap(
    labels: np.ndarray,
    predictions: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    draws: int = DRAWS,
    level: float = LEVEL,
    names: tuple = (),
    clusters: np.ndarray | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of metrics averaged over seeds, by resampling seeds and images.

    Parameters
    ----------
    labels : ndarray [n]
        True classes of the test images.
    predictions : ndarray [S, n]
        Predicted classes, one row a seed; -1 where a seed has not seen an image (a missing fold).
    metrics : mapping, optional
        Name to function of a stack of matrices, or of their margins, giving [...]; by default :data:`STACKED`.
    classes : int
        Number of classes C.
    names : tuple
        Names of the random stream, after "bootstrap".
    clusters : ndarray [n], optional
        Which images are drawn together: one image tested in several folds, or all images of a person.
    """
    found = replicates(labels, predictions, metrics, classes=classes, draws=draws, names=names, clusters=clusters)
    return found.intervals(level)


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
    clusters: np.ndarray | None = None,
) -> dict[str, Interval]:
    """Intervals of `ours` minus `reference`, paired: row s of both is one seed, and every draw shares seeds and images.

    Both arrays are [S, n]. An image that one side has not seen (-1) is left out of that seed on both sides.
    Other parameters as in :func:`bootstrap`.

    The p-values are those of :func:`crossed_difference`. A percentile's own would be wrong for few seeds that differ a
    lot (docs/results/coverage.md) and could not fall below 2 / (draws + 1), which Holm multiplies by the comparisons.
    """
    a, b = (
        replicates(labels, side, metrics, classes=classes, draws=draws, names=names, clusters=clusters)
        for side in paired(ours, reference)
    )
    exact = crossed_difference(labels, ours, reference, metrics, classes=classes, level=level, clusters=clusters)
    return {name: replace(found, p=exact[name].p) for name, found in (a - b).intervals(level).items()}


def bootstrap_improvement(
    labels: np.ndarray,
    ours: np.ndarray,
    reference: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    draws: int = DRAWS,
    level: float = LEVEL,
    names: tuple = (),
    clusters: np.ndarray | None = None,
) -> dict[str, Interval]:
    """:func:`probability_of_improvement` of `ours` over `reference`, with percentile intervals over seeds and images.

    It asks how often one training beats another, not by how much. With S seeds it moves in steps of 1 / S², and where
    all of `ours` beat all of `reference` the interval has no width: five seeds can't tell 1.0 from 0.9.
    Parameters as in :func:`bootstrap_difference`.
    """
    a, b = (
        replicates(labels, side, metrics, classes=classes, draws=draws, names=names, clusters=clusters)
        for side in paired(ours, reference)
    )
    return a.improvements(b, level)


def probability_of_improvement(ours: np.ndarray, reference: np.ndarray) -> float:
    """P(A > B): the share of pairs of runs, one of each, in which ours is better; a tie counts half (Agarwal 2021).

    Every run of `ours` [S] meets every run of `reference` [T], so this is the Mann-Whitney statistic divided by S·T.
    Over several data sets Agarwal et al. take the mean. NaN runs are left out; NaN where none is left.
    """
    a, b = ours[np.isfinite(ours)], reference[np.isfinite(reference)]
    return float((np.sign(a[:, None] - b) + 1).mean() / 2) if len(a) and len(b) else float("nan")


def crossed(
    labels: np.ndarray,
    predictions: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    level: float = LEVEL,
    clusters: np.ndarray | None = None,
) -> dict[str, Interval]:
    """t-intervals of metrics averaged over seeds, from crossed standard errors (:mod:`fer_bench.stats.crossed_errors`).

    Parameters as in :func:`bootstrap`; no random draw. An interval of a share may pass 0 or 1: for the recall of a
    small class :func:`wilson` is better.
    """
    sample = jackknife(labels, predictions, metrics or STACKED, classes=classes, clusters=clusters)
    return {name: Interval(e.value, *e.limits(level)) for name, e in sample.estimates.items()}


def crossed_difference(
    labels: np.ndarray,
    ours: np.ndarray,
    reference: np.ndarray,
    metrics: Mapping[str, Stacked] | None = None,
    *,
    classes: int,
    level: float = LEVEL,
    clusters: np.ndarray | None = None,
) -> dict[str, Interval]:
    """t-intervals of `ours` minus `reference` with p-values, paired as in :func:`bootstrap_difference`; no random draw.

    From three seeds on they hold their level where the percentile interval does not (docs/results/coverage.md).
    """
    a, b = (
        jackknife(labels, side, metrics or STACKED, classes=classes, clusters=clusters)
        for side in paired(ours, reference)
    )
    return {name: Interval(e.value, *e.limits(level), e.p) for name, e in (a - b).estimates.items()}


def _over_seeds(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weighted mean over the seeds in which the metric is known: [draws, S] -> [draws]."""
    known = np.isfinite(values)
    return ratio((np.where(known, values, 0.0) * shares).sum(1), (shares * known).sum(1))


def _percentile(value: float, sample: np.ndarray, level: float) -> Interval:
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return Interval(value, float("nan"), float("nan"))
    # Rounded, so that a difference of zero is zero whatever the order of the sums.
    low, high = np.round(np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2]), 12)
    return Interval(value, float(low), float(high))
