"""The smallest gain that a study of a given size can detect, for planning a study and for interpreting "within noise".

Both functions are for paired designs and two-sided tests at level `alpha`, which is divided by the number of
comparisons where there are several (Holm's first step, so the power holds for the hardest comparison):

- :func:`detectable_gain`: S seeds of two methods on n images of a class. The gain of seed s on image i is +1, 0 or -1;
  its variance has components between seeds, between images and a residual (:func:`variance_components`), so its mean
  over both has the variance var_seeds / S + var_images / n + var_residual / (S n). Power is that of a t-test with the
  degrees of freedom of :mod:`fer_bench.stats.crossed_errors`: a non-central t, squared.
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

from dataclasses import dataclass

import numpy as np
from scipy import special

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
        Number of comparisons for Holm's correction; `alpha` is divided by it.

    Raises
    ------
    ValueError
        Fewer than two seeds.
    """
    error, df = _error_and_df(components, seeds, images)
    if error == 0:
        return 0.0
    # The power functions above, solved for the non-centrality: the squared gain in standard errors.
    if df > MANY:
        errors = special.chndtrinc(special.ndtri(alpha / comparisons / 2) ** 2, 1, 1 - power) ** 0.5
    else:
        critical = special.stdtrit(df, alpha / comparisons / 2) ** 2
        errors = special.ncfdtrinc(1, df, 1 - power, critical) ** 0.5
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
