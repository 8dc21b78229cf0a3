"""Ranks over data sets or folds: Friedman's test, Iman and Davenport's form of it, Nemenyi's critical difference.

They ask whether k methods differ over N data sets, given one number per method and data set. Folds of one data set
share training images, so ranks over folds are correlated and the tests have too many type I errors: print such a
diagram as a description only. With fewer than about ten data sets the tests have little power.

References
----------
J. Demsar (2006), Statistical comparisons of classifiers over multiple data sets, JMLR 7, section 3.2.
M. Friedman (1937), The use of ranks to avoid the assumption of normality, JASA 32.
R. Iman, J. Davenport (1980), Approximations of the critical region of the Friedman statistic, Comm. Statistics A 9.
P. Nemenyi (1963), Distribution-free multiple comparisons, PhD thesis, Princeton.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from fer_bench.rng import numpy_generator

PERMUTATIONS = 20_000  # all orders are enumerated where there are fewer: 4 methods on 3 data sets have 13,824


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The content of a critical-difference diagram, and the tests behind it.

    Attributes
    ----------
    names : tuple of str
        Methods, the best mean rank first.
    ranks : ndarray [k]
        Their mean ranks; 1 is best, ties share the mean of their places.
    blocks : int
        Number of data sets (or folds) N.
    chi2, chi2_p : float
        Friedman's statistic and its p-value with k - 1 degrees of freedom.
    f, f_p : float
        Iman and Davenport's F with k - 1 and (k - 1)(N - 1), less conservative; infinite where all blocks agree.
    exact_p : float
        P-value of Friedman's statistic by permutation (:func:`permutation_p`).
    critical_difference : float
        Nemenyi's critical difference of mean ranks at `alpha`.
    pairwise_p : ndarray [k, k]
        Nemenyi's p-values of all pairs; 1 on the diagonal.
    cliques : tuple of tuple of str
        The bars of the diagram: largest groups of two or more neighbours in rank whose ends differ by less than
        `critical_difference`.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    blocks: int
    alpha: float
    chi2: float
    chi2_p: float
    f: float
    f_p: float
    exact_p: float
    critical_difference: float
    pairwise_p: np.ndarray
    cliques: tuple[tuple[str, ...], ...]


def rank_methods(
    values: np.ndarray,
    names: tuple[str, ...],
    *,
    better: str = "higher",
    alpha: float = 0.05,
    correct_ties: bool = True,
) -> Ranking:
    """Rank k methods over N blocks.

    Parameters
    ----------
    values : ndarray [N, k]
        One number per data set (or fold) and method, such as the mean over seeds.
    names : tuple of str
        Names of the k methods.
    better : "higher" or "lower"
        Whether higher or lower values are better.
    correct_ties : bool
        Divide Friedman's statistic by the correction for ties, as SciPy does; Demsar's formula does not.

    Raises
    ------
    ValueError
        Fewer than two methods or blocks, a value that is not finite, or names that do not match the methods.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2 or values.shape[1] != len(names):
        raise ValueError(
            f"values {values.shape} must be [blocks, methods], at least two of each, for {len(names)} names"
        )
    if not np.isfinite(values).all() or better not in ("higher", "lower"):
        raise ValueError("every value must be finite, and 'better' must be 'higher' or 'lower'")
    blocks, k = values.shape
    places = distributions.rankdata(-values if better == "higher" else values, axis=1)
    order = np.argsort(places.mean(0), kind="stable")
    ranks, names = places.mean(0)[order], tuple(names[i] for i in order)
    chi2 = friedman_statistic(ranks, blocks) / (_tie_correction(places) if correct_ties else 1.0)
    f = iman_davenport(chi2, blocks, k)
    difference = critical_difference(k, blocks, alpha)
    return Ranking(
        names=names,
        ranks=ranks,
        blocks=blocks,
        alpha=alpha,
        chi2=chi2,
        chi2_p=float(distributions.chi2.sf(chi2, k - 1)),
        f=f,
        f_p=float(distributions.f.sf(f, k - 1, (k - 1) * (blocks - 1))),
        exact_p=permutation_p(places),
        critical_difference=difference,
        pairwise_p=_nemenyi(ranks, blocks),
        cliques=_cliques(ranks, names, difference),
    )


def permutation_p(places: np.ndarray) -> float:
    """P-value of Friedman's statistic over all orders of the methods within the blocks, or a sample of them.

    It needs no approximation, so it holds for few blocks, where the chi² and F approximations do not.

    Parameters
    ----------
    places : ndarray [N, k]
        Ranks of the k methods in each block.
    """

    def spread(*sides: np.ndarray, axis: int) -> np.ndarray:
        # With the ties within blocks fixed, Friedman's statistic increases with the squares of the rank sums.
        return np.sum([side.sum(axis) ** 2 for side in sides], axis=0)

    result = distributions.permutation_test(
        tuple(places.T),
        spread,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        random_state=numpy_generator(0, "friedman"),
    )
    return float(result.pvalue)


def friedman_statistic(ranks: np.ndarray, blocks: int) -> float:
    """Friedman's chi² from mean ranks [k] over `blocks`, without correction for ties (Demsar 2006, section 3.2.2)."""
    k = len(ranks)
    return float(12 * blocks / (k * (k + 1)) * (np.sum(np.asarray(ranks) ** 2) - k * (k + 1) ** 2 / 4))


def iman_davenport(chi2: float, blocks: int, k: int) -> float:
    """Iman and Davenport's F; infinite where chi² has its maximum, blocks·(k - 1)."""
    left = blocks * (k - 1) - chi2
    return (blocks - 1) * chi2 / left if left > 1e-9 * blocks * k else float("inf")


def critical_difference(k: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of two mean ranks: q_alpha · sqrt(k (k + 1) / (6 N))."""
    q = float(distributions.studentized_range.ppf(1 - alpha, k, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(k * (k + 1) / (6 * blocks)))


def _tie_correction(places: np.ndarray) -> float:
    """1 where nothing is tied, and where everything is, since the statistic is then zero."""
    blocks, k = places.shape
    sizes = [np.unique(row, return_counts=True)[1] for row in places]
    left = 1 - sum(float((s**3 - s).sum()) for s in sizes) / (blocks * (k**3 - k))
    return left if left > 0 else 1.0


def _nemenyi(ranks: np.ndarray, blocks: int) -> np.ndarray:
    k = len(ranks)
    apart = np.abs(ranks[:, None] - ranks) / np.sqrt(k * (k + 1) / (6 * blocks))
    p = distributions.studentized_range.sf(apart * np.sqrt(2), k, np.inf)
    return np.where(apart == 0, 1.0, np.clip(p, 0.0, 1.0))


def _cliques(ranks: np.ndarray, names: tuple[str, ...], difference: float) -> tuple[tuple[str, ...], ...]:
    ends = [int(np.flatnonzero(ranks - rank < difference)[-1]) for rank in ranks]
    starts = [i for i, end in enumerate(ends) if end > i and (i == 0 or end > ends[i - 1])]
    return tuple(names[i : ends[i] + 1] for i in starts)
