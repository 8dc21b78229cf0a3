"""Trainings that cross subsets with seeds: the mean squares of both, and what they say about the grand mean.

A thinned training set is one draw of many. R draws (subsets), on each of which S seeds are trained, give R S values

    d_rs = mu + a_r + b_s + e_rs

with random effects of the subset, of the seed (which may well be none: a seed does not mean the same on other images),
and of the single training. All trainings are tested on the same images, so their errors are correlated as well. Let T
be the variance of one d_rs, and A, B and C the covariances of two that share the subset, the seed, or neither; the last
is due to images alone. The analysis of variance of the R x S table has the mean squares (Searle, Casella, McCulloch
1992, chapter 4, with C from Obuchowski and Rockette 1995)

    E MS_subset = T + (S - 1) A - B - (S - 1) C
    E MS_seed   = T + (R - 1) B - A - (R - 1) C
    E MS_rest   = T - A - B + C

and the grand mean has the variance [T + (S - 1) A + (R - 1) B + (R - 1) (S - 1) C] / (R S), which is

    (MS_subset + MS_seed - MS_rest) / (R S) + C

in expectation. With one subset, or with one seed, a single mean square is left, and this is the formula of
:mod:`fer_bench.stats.crossed_errors`. The sum is kept from falling too low by chance: neither effect has a negative
variance, so MS_subset and MS_seed count as MS_rest at least (:func:`bounded_sum`), and each mean square as what the
images explain of it. Both make the estimate too large rather than too small.

The degrees of freedom of the sum are Satterthwaite's (1946), of the mean squares that are left in it after that bound:
sum² / (MS_subset² / (R - 1) + MS_seed² / (S - 1) + MS_rest² / ((R - 1) (S - 1))). He warns that a mean square which is
subtracted makes this too small, so it is taken to be no less than the smaller of R - 1 and S - 1.

References
----------
S. Searle, G. Casella, C. McCulloch (1992), Variance Components, Wiley.
F. Satterthwaite (1946), An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
N. Obuchowski, H. Rockette (1995), Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests,
Communications in Statistics - Simulation and Computation 24.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class MeanSquares:
    """The mean squares of a table of R subsets and S seeds, two of each at least."""

    subset: float
    seed: float
    rest: float

    @classmethod
    def of(cls, table: np.ndarray) -> MeanSquares:
        """Those of a table [R, S], or the sums of those of several [U, R, S]."""
        table = np.asarray(table, dtype=float)
        table = table - table.mean((-2, -1), keepdims=True)
        subsets, seeds = table.shape[-2:]
        by_subset, by_seed = table.mean(-1, keepdims=True), table.mean(-2, keepdims=True)
        rest = table - by_subset - by_seed
        return cls(
            subset=seeds / (subsets - 1) * float((by_subset**2).sum()),
            seed=subsets / (seeds - 1) * float((by_seed**2).sum()),
            rest=float((rest**2).sum()) / ((subsets - 1) * (seeds - 1)),
        )

    def scaled(self, factor: float) -> MeanSquares:
        """All three times a factor."""
        return MeanSquares(subset=factor * self.subset, seed=factor * self.seed, rest=factor * self.rest)

    def __add__(self, other: MeanSquares) -> MeanSquares:
        return MeanSquares(
            subset=self.subset + other.subset, seed=self.seed + other.seed, rest=self.rest + other.rest
        )  # fmt: skip

    def at_least(self, other: MeanSquares) -> MeanSquares:
        """The larger of each."""
        return MeanSquares(
            subset=max(self.subset, other.subset), seed=max(self.seed, other.seed), rest=max(self.rest, other.rest)
        )

    def beyond(self, other: MeanSquares) -> MeanSquares:
        """What each exceeds that of `other` by, or 0."""
        return MeanSquares(
            subset=max(self.subset - other.subset, 0.0),
            seed=max(self.seed - other.seed, 0.0),
            rest=max(self.rest - other.rest, 0.0),
        )

    @property
    def plain_sum(self) -> float:
        """MS_subset + MS_seed - MS_rest."""
        return self.subset + self.seed - self.rest

    @property
    def bounded_sum(self) -> float:
        """The same, where neither effect may have a negative variance."""
        return max(self.subset, self.rest) + max(self.seed, self.rest) - self.rest

    def df_of_sum(self, subsets: int, seeds: int) -> float:
        """Satterthwaite's degrees of freedom of :attr:`bounded_sum`."""
        of_rest = (subsets - 1) * (seeds - 1)
        terms = [(self.subset, subsets - 1)] * (self.subset > self.rest) + [(self.seed, seeds - 1)] * (
            self.seed > self.rest
        )
        if len(terms) != 1:  # a single effect above the rest stands alone: the rest cancels
            terms.append((self.rest, of_rest))
        denominator = sum(value**2 / df for value, df in terms)
        if not denominator > 0:
            return float(of_rest)
        return max(self.bounded_sum**2 / denominator, float(min(subsets - 1, seeds - 1)))


def several(subsets: np.ndarray | None) -> np.ndarray | None:
    """The subset of each training; None where all trainings have the same one, so that nothing is crossed."""
    return None if subsets is None or len(np.unique(subsets)) < 2 else np.asarray(subsets)


def table_of(subsets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The rows that form a complete table of subsets and seeds, int [R, S], among those that are `known`.

    Parameters
    ----------
    subsets : int ndarray [rows]
        The subset of each training. The k-th row of every subset has the k-th seed.
    known : bool ndarray [rows]
        Which of them can be used.

    Raises
    ------
    ValueError
        The subsets have different numbers of rows, so their seeds can't be matched.
    """
    places = [np.flatnonzero(subsets == subset) for subset in np.unique(subsets)]
    if len({len(rows) for rows in places}) > 1:
        raise ValueError(f"every subset must have the same seeds, not {[len(rows) for rows in places]} rows")
    rows = np.array(places).reshape(len(places), -1)
    return rows[np.ix_(*complete(known[rows]))]


def complete(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subsets and seeds, as positions, of a complete part of a table [R, S] of which some cells are `present`.

    Until nothing is missing, one is left out after the other: the subset that lacks most, if it lacks more than half of
    its seeds, or else the seed that lacks most, the last of equal ones. Subsets are kept where that is possible, since
    they are fewer and tend to differ more.
    """
    subsets, seeds = np.arange(present.shape[0]), np.arange(present.shape[1])
    while len(subsets) and len(seeds) and not (part := present[np.ix_(subsets, seeds)]).all():
        of_subsets, of_seeds = (~part).mean(1), (~part).mean(0)
        if of_subsets.max() > 0.5:
            subsets = np.delete(subsets, np.flatnonzero(of_subsets == of_subsets.max())[-1])
        else:
            seeds = np.delete(seeds, np.flatnonzero(of_seeds == of_seeds.max())[-1])
    return subsets, seeds
