"""The smallest gain that a study of a given size can detect, for planning a study and for interpreting "within noise".

All functions are for paired designs and two-sided tests at level `alpha`, which is divided by the number of
comparisons where there are several, as a Bonferroni correction does:

- :func:`detectable_gain`: S seeds of two methods on n images of a class. The gain of seed s on image i is +1, 0 or -1;
  its variance has components between seeds, between images and a residual (:func:`variance_components`), so its mean
  over both has the variance var_seeds / S + var_images / n + var_residual / (S n). Power is that of a t-test with the
  degrees of freedom of :mod:`fer_bench.stats.crossed_errors`: a non-central t, squared. The p-value that reports print,
  which inverts their interval (:func:`fer_bench.stats.intervals.score_differences`), detects as much.
- :func:`detectable_by_design`: the same for a score of any kind, as the mean recall of several classes, from the
  variance that a study has measured (:class:`fer_bench.stats.crossed_errors.Estimate`). Images are stratified by class:
  var_images and the residual are sums over the classes, var_seeds is that of the mean over classes, so trainings that
  favour one class at the cost of another cancel out.
- :func:`detectable_by_mcnemar`: one pair of networks, from the share of images that only one of them classifies
  correctly.

References
----------
S. Hillis, N. Obuchowski, K. Berbaum (2011), Power estimation for multireader ROC methods: an updated and unified
approach, Academic Radiology 18.
R. Connor (1987), Sample size for testing differences in proportions for the paired-sample design, Biometrics 43.
O. Miettinen (1968), The matched pairs design in the case of all-or-none responses, Biometrics 24.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from fer_bench.stats.crossed_errors import Estimate

POWER = 0.8
ALPHA = 0.05
MANY = 1e6  # degrees of freedom from which t is normal


@dataclass(frozen=True, kw_only=True)
class VarianceComponents:
    """Variance of a paired gain by its sources; squared shares, none negative.

    Attributes
    ----------
    var_seeds : float
        Between trainings: of a seed's gain on infinitely many images.
    var_images : float
        Between images: of an image's gain over infinitely many trainings.
    var_residual : float
        Of one training on one image, beyond both.
    """

    var_seeds: float
    var_images: float
    var_residual: float

    def variance(self, seeds: int, images: int) -> float:
        """Variance of the mean gain of `seeds` seeds on `images` images."""
        return self.var_seeds / seeds + self.var_images / images + self.var_residual / (seeds * images)

    def df(self, seeds: int, images: int) -> float:
        """Degrees of freedom of its test, as in :mod:`.crossed_errors`; infinite where nothing varies."""
        between, common = (self.var_seeds + self.var_residual / images) / seeds, self.var_images / images
        denominator = between**2 / (seeds - 1) + common**2 / max(images - 1, 1)
        return (between + common) ** 2 / denominator if denominator > 0 else float("inf")


def variance_components(gains: np.ndarray) -> VarianceComponents:
    """Variance components of gains [S, n] (+1, 0 or -1), by a two-way crossed analysis of variance.

    A negative estimate is set to zero.

    Raises
    ------
    ValueError
        Fewer than two seeds or images: their variance can't be separated from the residual.
    """
    gains = np.asarray(gains, dtype=float)
    if gains.ndim != 2 or min(gains.shape) < 2:
        raise ValueError(f"gains {gains.shape} must be [seeds, images], at least two of each")
    seeds, images = gains.shape
    by_seed, by_image, mean = gains.mean(1), gains.mean(0), gains.mean()
    left = gains - by_seed[:, None] - by_image + mean
    residual = float((left**2).sum()) / ((seeds - 1) * (images - 1))
    seed = float(by_seed.var(ddof=1)) - residual / images
    image = float(by_image.var(ddof=1)) - residual / seeds
    return VarianceComponents(var_seeds=max(seed, 0.0), var_images=max(image, 0.0), var_residual=residual)


def assumed_components(discordance: float, seed_spread: float = 0.0) -> VarianceComponents:
    """Conservative variance components for planning without a pilot study.

    Parameters
    ----------
    discordance : float
        Share of images that only one of two paired networks classifies correctly. All of it is attributed to the
        images, as if other seeds repeated it, so that more seeds do not average it out.
    seed_spread : float
        Standard deviation of the gain between seeds, beyond what images explain.
    """
    return VarianceComponents(var_seeds=seed_spread**2, var_images=discordance, var_residual=0.0)


def power_of(gain: float, components: VarianceComponents, seeds: int, images: int, *, alpha: float = ALPHA) -> float:
    """Probability that a two-sided test at `alpha` detects a true `gain`.

    Raises
    ------
    ValueError
        Fewer than two seeds.
    """
    error, df = _error_and_df(components, seeds, images)
    if gain == 0:
        return alpha
    if error == 0:
        return 1.0
    if df > MANY:
        return 1 - float(special.chndtr(special.ndtri(alpha / 2) ** 2, 1, (gain / error) ** 2))
    critical = special.stdtrit(df, alpha / 2) ** 2
    return 1 - float(special.ncfdtr(1, df, (gain / error) ** 2, critical))


def detectable_gain(
    components: VarianceComponents,
    seeds: int,
    images: int,
    *,
    power: float = POWER,
    alpha: float = ALPHA,
    comparisons: int = 1,
) -> float:
    """The smallest true gain, as a share, that is detected with probability `power`.

    Infinity where even a gain of 100 points would be missed.

    Parameters
    ----------
    components : VarianceComponents
        From earlier runs (:func:`variance_components`) or assumed (:func:`assumed_components`).
    seeds, images : int
        Shared seeds and test images of the class.
    comparisons : int
        Number of comparisons; `alpha` is divided by it.

    Raises
    ------
    ValueError
        Fewer than two seeds.
    """
    error, df = _error_and_df(components, seeds, images)
    return _smallest(error, df, power, alpha / comparisons)


def detectable_by_design(
    difference: Estimate, seeds: int | None = None, *, power: float = POWER, alpha: float = ALPHA
) -> float:
    """The smallest true gain, as a share, that this study, or one with other seeds, would detect.

    Infinity where even a gain of 100 points would be missed, and 0 where nothing varies.

    Parameters
    ----------
    difference : Estimate
        Of the paired difference (:func:`fer_bench.stats.intervals.difference_estimates`).
    seeds : int, optional
        Shared seeds of a study with the same test images; those of this study if left out.

    Raises
    ------
    ValueError
        Fewer than two seeds, here or in the study that is asked about.
    """
    seeds = difference.n_seeds if seeds is None else seeds
    if min(seeds, difference.n_seeds) < 2:
        raise ValueError("a gain needs at least two seeds: one says nothing about other trainings")
    # What belongs to the trainings alone, and to single images of a training, falls with the number of seeds.
    trainings, excess = (part * difference.n_seeds / seeds for part in (difference.var_seeds, difference.var_excess))
    df_trainings = difference.df_trainings * (seeds - 1) / (difference.n_seeds - 1)
    planned = replace(difference, var_seeds=trainings, n_seeds=seeds, df_trainings=df_trainings)
    return _smallest((trainings + difference.var_images) ** 0.5, planned.df_for(excess), power, alpha)


def _smallest(error: float, df: float, power: float, alpha: float) -> float:
    """The gain that a t-test with this standard error detects, by the non-centrality of its squared statistic."""
    if error == 0:
        return 0.0
    if df > MANY:
        errors = special.chndtrinc(special.ndtri(alpha / 2) ** 2, 1, 1 - power) ** 0.5
    else:
        errors = special.ncfdtrinc(1, df, 1 - power, special.stdtrit(df, alpha / 2) ** 2) ** 0.5
    gain = float(errors) * error
    return gain if gain <= 1 else float("inf")


def _error_and_df(components: VarianceComponents, seeds: int, images: int) -> tuple[float, float]:
    if seeds < 2:
        raise ValueError("a gain needs at least two seeds: one says nothing about other trainings")
    return components.variance(seeds, images) ** 0.5, components.df(seeds, images)


def detectable_by_mcnemar(
    discordance: float, images: int, *, power: float = POWER, alpha: float = ALPHA, comparisons: int = 1
) -> float:
    """The smallest true difference of two networks that McNemar's test detects on `images` images.

    Solves Connor's ``images = (z_alpha sqrt(psi) + z_power sqrt(psi - d²))² / d²`` for d, with psi the `discordance`.
    Infinity where even d = psi, all discordant images gained, would be missed.
    """
    z_alpha, z_power = special.ndtri(1 - alpha / comparisons / 2), special.ndtri(power)
    # Squared, that is a quadratic equation in d; its root on the right side is
    reach = images + z_power**2
    gain = (z_alpha * images**0.5 + z_power * max(reach - z_alpha**2, 0.0) ** 0.5) * discordance**0.5 / reach
    return float(gain) if reach >= z_alpha**2 and 0 < gain <= discordance else float("inf")
