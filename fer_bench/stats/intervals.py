"""Confidence intervals for small classes and few seeds; Holm's correction.

Reports show :func:`score_intervals` and :func:`score_differences`. The first is Wilson's interval for the number of
images that would explain the variance over seeds and images (:mod:`fer_bench.stats.crossed_errors`); the second joins
two such intervals as Newcombe does, and shortens the result by what pairing gains. Neither leaves the possible range,
and both keep their coverage from three seeds and a few dozen images on (docs/results/coverage.md).

An interval and its p-value never disagree. Intervals are nested: a higher level never gives a shorter one. So p is the
alpha at which the (1 - alpha) interval touches zero, and the interval at any level excludes zero exactly when
p < 1 - level. For m comparisons, intervals of the level 1 - alpha / m agree with Bonferroni's p-values min(1, m p).
:func:`t_intervals` are the t-intervals of the same variance. Intervals by resampling are in
:mod:`fer_bench.stats.bootstrap`.

References
----------
E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
E. Korn, B. Graubard (1998), Confidence intervals for proportions with small expected number of positive counts
estimated from survey data, Survey Methodology 24 (effective number of images, t instead of z).
R. Newcombe (1998), Interval estimation for the difference between independent proportions: comparison of eleven
methods, Statistics in Medicine 17 (method 10); G. Zou, A. Donner (2008), Construction of confidence limits about effect
measures: a general approach, Statistics in Medicine 27, for its assumptions.
S. Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

from fer_bench.stats.crossed_errors import Estimate, Jackknife

LEVEL = 0.95
FARTHEST = 37.0  # normal quantile of the smallest p-value that is told from 0: 1e-299


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; all are shares, not percent.

    `p` is the two-sided p-value of a difference against zero: the interval at any level excludes zero exactly when
    p < 1 - level. It is NaN where the value is not a difference, and where the interval itself is unknown.
    """

    value: float
    low: float
    high: float
    p: float = float("nan")

    def covers(self, value: float = 0.0) -> bool:
        """Whether `value` lies in the interval, limits included."""
        return self.low <= value <= self.high

    @property
    def known(self) -> bool:
        """Whether there was anything to compute it from."""
        return bool(np.isfinite([self.value, self.low, self.high]).all())


def wilson(hits: float, n: float, level: float = LEVEL, df: float = np.inf) -> Interval:
    """Wilson's score interval of a share of `n` images.

    Parameters
    ----------
    hits : float
        Number of hits, 0 to `n`.
    n : float
        Number of images, or the effective number that explains a variance (:func:`score_intervals`); 0 gives NaN.
    df : float
        Degrees of freedom of the t-distribution, which replaces the normal one where `n` rests on an estimated
        variance.

    References
    ----------
    Wilson (1927); Brown, Cai, DasGupta (2001), Interval estimation for a binomial proportion, Statistical Science 16.
    """
    if not n > 0 or not np.isfinite(hits):
        return Interval(float("nan"), float("nan"), float("nan"))
    share = hits / n
    return Interval(share, *_wilson_limits(share, n, _quantile(1 - level, df)))


def _wilson_limits(share: float, n: float, z: float) -> tuple[float, float]:
    """Both limits for the quantile `z`; 0 and 1 where it is infinite."""
    weight = n / (n + z * z)  # of the data against one half
    middle = weight * share + (1 - weight) / 2
    half = math.sqrt(max(0.0, weight * (1 - weight) * share * (1 - share) + (1 - weight) ** 2 / 4))
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def _quantile(alpha: float, df: float) -> float:
    """How many standard errors a (1 - alpha) interval reaches to either side."""
    return -float(ndtri(alpha / 2) if math.isinf(df) else stdtrit(df, alpha / 2))


def score_intervals(sample: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """Intervals of scores between 0 and 1, averaged over seeds: Wilson's with an effective number of images.

    One training tested on n images has the variance p (1 - p) / (n - 1). So with p the mean over seeds and V its
    crossed variance, n = 1 + p (1 - p) / V images would leave p exactly as uncertain as it is. The number exceeds that
    of the class where seeds err on different images, and falls below it where whole trainings differ. The
    t-distribution has the degrees of freedom of V. Where nothing varies, as when all predictions are correct or all are
    the same class, n is the number of images behind the score
    (:attr:`fer_bench.stats.crossed_errors.Jackknife.effective_units`): those of a class for its recall, all images for
    accuracy.

    The recall of one seed whose sampling units are images has Wilson's own interval, which says nothing about other
    trainings.
    """
    sides = {name: _Side.of(sample, name) for name in sample.values}
    return {name: wilson(side.share * side.images, side.images, level, side.df) for name, side in sides.items()}


def effective_images(sample: Jackknife, name: str) -> tuple[float, bool]:
    """The number of images of one training that gives a score its variance, and whether the score varies at all."""
    estimate = sample.estimates[name]
    share, variance = estimate.value, estimate.standard_error**2
    varies = variance > 0 and 0 < share < 1
    return (1 + share * (1 - share) / variance if varies else sample.effective_units[name]), varies


@dataclass(frozen=True)
class _Side:
    """A share, the number of images that it rests on, and its degrees of freedom: infinite without an own variance."""

    share: float
    images: float
    df: float

    @classmethod
    def of(cls, sample: Jackknife, name: str) -> _Side:
        estimate, (images, varies) = sample.estimates[name], effective_images(sample, name)
        # The share alone determines its variance where nothing varies, and for one seed.
        known = not varies or (sample.units_are_images and len(sample.values[name]) == 1)
        return cls(estimate.value, images, math.inf if known else estimate.df)

    def down(self, alpha: float, df: float | None = None) -> float:
        """Distance from the share to its lower limit, if need be with other degrees of freedom than its own."""
        own = self.df if df is None or math.isinf(self.df) else df
        return self.share - _wilson_limits(self.share, self.images, _quantile(alpha, own))[0]

    def mirrored(self) -> _Side:
        """The share of images that are wrong."""
        return replace(self, share=1 - self.share)


def score_differences(ours: Jackknife, reference: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """Intervals of `ours` minus `reference`, paired by seed and image, with the p-values that invert them.

    With a and b the distances from each mean to its limit on the side that counts (:func:`score_intervals`), Newcombe's
    interval for independent samples is value -+ sqrt(a² + b²). Pairing shortens it as it shortens the standard error:

        value -+ k sqrt(a² + b²),   k² = V_difference / (V_ours + V_reference)

    Newcombe's own interval for pairs, value -+ sqrt(a² - 2 r a b + b²), agrees with this where both sides are alike.
    But with a high correlation r its limits can move inwards as the level rises, and at high levels they exclude equal
    methods too often (docs/results/coverage.md). In k, V_difference is at least the square of one image's weight, up to
    V_ours + V_reference: even two sides with identical predictions might be separated by other images.

    Both sides have the degrees of freedom of V_difference. The part with S - 1 degrees of freedom is all of the
    variance between trainings, or what images do not explain of both sides, whichever is larger, but never more than
    V_difference. No limit goes beyond what the intervals of both sides allow: the lower one of ours minus the upper one
    of the reference, and vice versa.

    Both must have been measured on the same images with the same seeds in the same order. The p-value is 1 where the
    value is 0, 0 where no level below 1 reaches zero, and NaN together with the limits where a side has no value, as
    the recall of a class without test images.
    """
    return score_differences_at(ours, reference, [level])[level]


def score_differences_at(
    ours: Jackknife, reference: Jackknife, levels: Iterable[float]
) -> dict[float, dict[str, Interval]]:
    """The intervals of :func:`score_differences` by level: several levels cost little more than one."""
    differences = (ours - reference).estimates
    out: dict[float, dict[str, Interval]] = {level: {} for level in levels}
    for name in ours.values:
        difference = _Difference.of(ours, reference, name, differences[name])
        p = difference.p
        for level, intervals in out.items():
            intervals[name] = Interval(difference.value, *difference.limits(level), p)
    return out


def difference_estimates(ours: Jackknife, reference: Jackknife) -> dict[str, Estimate]:
    """Estimates of `ours` minus `reference` for planning (:func:`fer_bench.stats.power.detectable_by_design`).

    Their `var_excess` is the part of the variance that counts as estimated from S trainings in
    :func:`score_differences`.
    """
    return {
        name: replace(of, var_excess=_of_trainings(of, ours.estimates[name], reference.estimates[name]))
        for name, of in (ours - reference).estimates.items()
    }


def _of_trainings(difference: Estimate, ours: Estimate, reference: Estimate) -> float:
    """The part of the variance of a difference that counts as estimated from S trainings."""
    part = max(difference.var_seeds, math.hypot(ours.var_excess, reference.var_excess))
    return min(part, difference.var_seeds + difference.var_images)


@dataclass(frozen=True)
class _Difference:
    """What the interval of a difference is made of, at every level: both sides, k, and the degrees of freedom."""

    value: float
    ours: _Side
    reference: _Side
    k: float
    df: float

    @classmethod
    def of(cls, ours: Jackknife, reference: Jackknife, name: str, difference: Estimate) -> _Difference:
        sides = [side.estimates[name] for side in (ours, reference)]
        df = difference.df_for(_of_trainings(difference, *sides))
        units = min(side.effective_units[name] for side in (ours, reference))
        unpaired = sum(side.standard_error**2 for side in sides)
        k = 1.0
        if unpaired > 0 and units > 0:
            k = math.sqrt(max(difference.standard_error**2, min(1 / units**2, unpaired)) / unpaired)
        # Rounded, so that equal means differ by exactly zero whatever the order of the sums.
        return cls(round(difference.value, 12), _Side.of(ours, name), _Side.of(reference, name), k, df)

    @property
    def known(self) -> bool:
        """Whether both sides have a value and images behind it."""
        return math.isfinite(self.value) and self.ours.images > 0 and self.reference.images > 0

    def limits(self, level: float) -> tuple[float, float]:
        """Both limits of the interval."""
        if not self.known:
            return math.nan, math.nan
        return self.value - self._down(1 - level), self.value + self._mirrored()._down(1 - level)

    @property
    def p(self) -> float:
        """The alpha at which the interval touches zero."""
        if not self.known:
            return math.nan
        if self.value == 0:
            return 1.0
        ahead = self if self.value > 0 else self._mirrored()

        def beyond_zero(z: float) -> float:
            return ahead._down(2 * float(ndtr(-z))) - ahead.value

        if beyond_zero(FARTHEST) < 0:
            return 0.0
        return 2 * float(ndtr(-brentq(beyond_zero, 0.0, FARTHEST, xtol=1e-13)))

    def _mirrored(self) -> _Difference:
        """The reference minus ours."""
        return replace(self, value=-self.value, ours=self.reference, reference=self.ours)

    def _down(self, alpha: float) -> float:
        """Distance from the value to the lower limit of the (1 - alpha) interval; never grows with alpha."""
        ours, reference = self.ours, self.reference.mirrored()
        reach = self.k * math.hypot(ours.down(alpha, self.df), reference.down(alpha, self.df))
        return min(reach, ours.down(alpha) + reference.down(alpha))


def t_intervals(sample: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """t-intervals of scores averaged over seeds, with their two-sided p-values against zero; no random draw.

    For a paired difference pass ``ours - reference``. From three seeds on these keep their coverage where the
    percentile interval does not (docs/results/coverage.md). An interval of a share may leave the range 0 to 1: for the
    recall of a small class :func:`score_intervals` is better. Where neither seeds nor images vary, chance can't be
    judged: limits and p-value are NaN, except that a difference of 0 has the limits 0 and p = 1.
    """
    return {name: Interval(e.value, *e.limits(level), e.p) for name, e in sample.estimates.items()}


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, in the order given; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted
