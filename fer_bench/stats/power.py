"""The smallest gain that a study of given size would find, for planning and for reading "within noise" rightly.

Two questions, both for paired designs, both two-sided at `alpha`, divided by the number of comparisons where there are
several (Holm's first step, so the promise holds for the hardest of them):

- :func:`detectable_gain`: S seeds of two methods on n images of a class. The gain of seed s on image i is +1, 0 or -1;
  its variance has a part of seeds, a part of images and the rest (:func:`components`), so a mean over both has the
  variance seed / S + image / n + rest / (S n). Power is that of a t-test with the degrees of freedom of
  :mod:`fer_bench.stats.crossed_errors`: a non-central t, squared.
- :func:`detectable_by_mcnemar`: one pair of networks, from the share of images on which just one is right.

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
class Components:
    """Variance of a paired gain by its sources; squared shares, none negative.

    Attributes
    ----------
    seed : float
        Between trainings: the gain of a seed on endlessly many images.
    image : float
        Between images: the gain on an image over endlessly many trainings.
    rest : float
        What is left to one training on one image.
    """

    seed: float
    image: float
    rest: float

    def variance(self, seeds: int, images: int) -> float:
        """Variance of the mean gain of `seeds` seeds on `images` images."""
        return self.seed / seeds + self.image / images + self.rest / (seeds * images)

    def freedom(self, seeds: int, images: int) -> float:
        """Degrees of freedom of its test, as in :mod:`.crossed_errors`; infinite where nothing varies."""
        between, common = (self.seed + self.rest / images) / seeds, self.image / images
        doubt = between**2 / (seeds - 1) + common**2 / max(images - 1, 1)
        return (between + common) ** 2 / doubt if doubt > 0 else float("inf")


def components(gains: np.ndarray) -> Components:
    """Variance components of gains [S, n] (+1 gained, -1 lost, 0 alike), by analysis of variance in two crossed ways.

    An estimate below zero is set to zero.

    Raises
    ------
    ValueError
        Fewer than two seeds or images: their spread can't be told from the rest.
    """
    gains = np.asarray(gains, dtype=float)
    if gains.ndim != 2 or min(gains.shape) < 2:
        raise ValueError(f"gains {gains.shape} must be [seeds, images], two each at least")
    seeds, images = gains.shape
    by_seed, by_image, mean = gains.mean(1), gains.mean(0), gains.mean()
    left = gains - by_seed[:, None] - by_image + mean
    rest = float((left**2).sum()) / ((seeds - 1) * (images - 1))
    seed = float(by_seed.var(ddof=1)) - rest / images
    image = float(by_image.var(ddof=1)) - rest / seeds
    return Components(seed=max(seed, 0.0), image=max(image, 0.0), rest=rest)


def assumed_components(discordance: float, seed_spread: float = 0.0) -> Components:
    """Components for planning without a pilot, on the safe side.

    Parameters
    ----------
    discordance : float
        Share of images on which just one of two paired networks is right; all of it is taken to lie in the images, as
        if other seeds repeated it, so that more seeds do not average it away.
    seed_spread : float
        Standard deviation of the gain between seeds, beyond what images explain.
    """
    return Components(seed=seed_spread**2, image=discordance, rest=0.0)


def power_of(gain: float, spread: Components, seeds: int, images: int, *, alpha: float = ALPHA) -> float:
    """Probability that a true `gain` is found by a two-sided test at `alpha`.

    Raises
    ------
    ValueError
        Fewer than two seeds.
    """
    error, freedom = _error_and_freedom(spread, seeds, images)
    if gain == 0:
        return alpha
    if error == 0:
        return 1.0
    if freedom > MANY:
        return 1 - float(special.chndtr(special.ndtri(alpha / 2) ** 2, 1, (gain / error) ** 2))
    critical = special.stdtrit(freedom, alpha / 2) ** 2
    return 1 - float(special.ncfdtr(1, freedom, (gain / error) ** 2, critical))


def detectable_gain(
    spread: Components, seeds: int, images: int, *, power: float = POWER, alpha: float = ALPHA, comparisons: int = 1
) -> float:
    """The smallest true gain, as a share, that is found with probability `power`.

    Infinity where even a gain of 100 points would be missed.

    Parameters
    ----------
    spread : Components
        From earlier runs (:func:`components`) or assumed (:func:`assumed_components`).
    seeds, images : int
        Shared seeds and test images of the class.
    comparisons : int
        Number of comparisons that Holm's correction will count; `alpha` is divided by it.

    Raises
    ------
    ValueError
        Fewer than two seeds.
    """
    error, freedom = _error_and_freedom(spread, seeds, images)
    if error == 0:
        return 0.0
    # The power functions above, solved for the non-centrality: the squared gain in standard errors.
    if freedom > MANY:
        errors = special.chndtrinc(special.ndtri(alpha / comparisons / 2) ** 2, 1, 1 - power) ** 0.5
    else:
        critical = special.stdtrit(freedom, alpha / comparisons / 2) ** 2
        errors = special.ncfdtrinc(1, freedom, 1 - power, critical) ** 0.5
    gain = float(errors) * error
    return gain if gain <= 1 else float("inf")


def _error_and_freedom(spread: Components, seeds: int, images: int) -> tuple[float, float]:
    if seeds < 2:
        raise ValueError("a gain needs two seeds at least: one says nothing of other trainings")
    return spread.variance(seeds, images) ** 0.5, spread.freedom(seeds, images)


def detectable_by_mcnemar(
    discordance: float, images: int, *, power: float = POWER, alpha: float = ALPHA, comparisons: int = 1
) -> float:
    """The smallest true difference of two networks that McNemar's test finds on `images` images.

    Solves Connor's ``images = (z_alpha sqrt(psi) + z_power sqrt(psi - d²))² / d²`` for d, with psi the `discordance`.
    Infinity where even d = psi, all discordant images gained, would be missed.
    """
    z_alpha, z_power = special.ndtri(1 - alpha / comparisons / 2), special.ndtri(power)
    # Squared, that is a quadratic equation in d; its root on the right side is
    reach = images + z_power**2
    gain = (z_alpha * images**0.5 + z_power * max(reach - z_alpha**2, 0.0) ** 0.5) * discordance**0.5 / reach
    return float(gain) if reach >= z_alpha**2 and 0 < gain <= discordance else float("inf")
