"""Confidence intervals for small classes and few seeds; Holm's correction.

Reports show :func:`score_intervals` and :func:`score_differences`. The first is Wilson's interval for the number of
images that would explain the variance over seeds and images (:mod:`fer_bench.stats.crossed_errors`); the second is
Newcombe's interval of a paired difference, built from two such intervals. Neither leaves the possible range, and both
keep their coverage from two seeds and a few dozen images on (docs/results/coverage.md). :func:`t_intervals` are the
t-intervals of the same variance, whose p-values decide the verdicts of reports. Intervals by resampling are in
:mod:`fer_bench.stats.bootstrap`.

References
----------
E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
E. Korn, B. Graubard (1998), Confidence intervals for proportions with small expected number of positive counts
estimated from survey data, Survey Methodology 24 (effective number of images, t instead of z).
R. Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired data,
Statistics in Medicine 17 (method 8); G. Zou, A. Donner (2008), Statistics in Medicine 27, for its assumptions.
S. Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from fer_bench.stats.crossed_errors import Estimate, Jackknife

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; all are shares, not percent.

    `p` is the two-sided p-value of a difference against zero. It is NaN where the value is not a difference, and where
    neither images nor seeds vary, so that chance can't be judged.
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
    z = float(ndtri(0.5 + level / 2) if np.isinf(df) else stdtrit(df, 0.5 + level / 2))
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


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
    return {name: _score_interval(sample, name, level) for name in sample.values}


def _score_interval(sample: Jackknife, name: str, level: float, df: float | None = None) -> Interval:
    """Wilson's interval of one score; `df` replaces the degrees of freedom of its own variance if given."""
    estimate = sample.estimates[name]
    share, (images, varies) = estimate.value, effective_images(sample, name)
    # The share alone determines its variance where nothing varies, and for one seed.
    known = not varies or (sample.units_are_images and len(sample.values[name]) == 1)
    own = estimate.df if df is None else df
    return wilson(share * images, images, level, np.inf if known else own)


def effective_images(sample: Jackknife, name: str) -> tuple[float, bool]:
    """The number of images of one training that gives a score its variance, and whether the score varies at all."""
    estimate = sample.estimates[name]
    share, variance = estimate.value, estimate.standard_error**2
    varies = variance > 0 and 0 < share < 1
    return (1 + share * (1 - share) / variance if varies else sample.effective_units[name]), varies


def score_differences(ours: Jackknife, reference: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """Intervals of `ours` minus `reference`, paired by seed and image, with the p-values of the crossed t-test.

    The limits are Newcombe's: those of both sides from :func:`score_intervals`, combined with the correlation r of the
    two means. With a and b the distances from each mean to its limit on the side that counts,

        value -+ sqrt(a² - 2 r a b + b²),   r = (V_ours + V_reference - V_difference) / (2 sqrt(V_ours V_reference))

    For one seed, r is the phi coefficient and this is his method 8. With several, both sides have the degrees of
    freedom of V_difference: the part due to common images cancels, and few trainings have to estimate the rest. The
    part with S - 1 degrees of freedom is the variance of trainings that images do not explain, of the differences or of
    both sides, whichever is larger, but never more than all of V_difference. Two sides with identical predictions still
    have an interval of positive width, since other images might separate them; where one side does not vary, r is 0.

    Both must have been measured on the same images with the same seeds in the same order; p is NaN where nothing
    varies.
    """
    differences = (ours - reference).estimates
    return {name: _newcombe(ours, reference, name, differences[name], level) for name in ours.values}


def difference_estimates(ours: Jackknife, reference: Jackknife) -> dict[str, Estimate]:
    """Estimates of `ours` minus `reference` with the degrees of freedom of :func:`score_differences`.

    Their `var_excess` is what :func:`score_differences` takes for the variance of trainings that images do not explain.
    """
    return {
        name: replace(of, var_excess=_counted_excess(of, ours.estimates[name], reference.estimates[name]))
        for name, of in (ours - reference).estimates.items()
    }


def _counted_excess(difference: Estimate, ours: Estimate, reference: Estimate) -> float:
    """The variance of trainings that images do not explain, of the difference or of both sides if that is larger."""
    excess = max(difference.var_excess, math.hypot(ours.var_excess, reference.var_excess))
    return min(excess, difference.var_seeds + difference.var_images)


def _newcombe(ours: Jackknife, reference: Jackknife, name: str, difference: Estimate, level: float) -> Interval:
    """Newcombe's interval of a difference from the intervals of its sides."""
    sides = [side.estimates[name] for side in (ours, reference)]
    df = difference.df_for(_counted_excess(difference, *sides))
    a, b = (_score_interval(side, name, level, df) for side in (ours, reference))
    both = sides[0].standard_error * sides[1].standard_error
    twice_covariance = sides[0].standard_error ** 2 + sides[1].standard_error ** 2 - difference.standard_error**2
    r = min(max(twice_covariance / (2 * both), -1.0), 1.0) if both > 0 else 0.0

    def reach(near: float, far: float) -> float:
        return max(near**2 - 2 * r * near * far + far**2, 0.0) ** 0.5

    low = difference.value - reach(a.value - a.low, b.high - b.value)
    high = difference.value + reach(a.high - a.value, b.value - b.low)
    ours_alone, reference_alone = (_score_interval(side, name, level) for side in (ours, reference))
    low = max(low, ours_alone.low - reference_alone.high)
    high = min(high, ours_alone.high - reference_alone.low)
    return Interval(difference.value, min(low, difference.value), max(high, difference.value), difference.p)


def t_intervals(sample: Jackknife, level: float = LEVEL) -> dict[str, Interval]:
    """t-intervals of scores averaged over seeds, with their two-sided p-values against zero; no random draw.

    For a paired difference pass ``ours - reference``. From three seeds on these keep their coverage where the
    percentile interval does not (docs/results/coverage.md). An interval of a share may leave the range 0 to 1: for the
    recall of a small class :func:`score_intervals` is better.
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
