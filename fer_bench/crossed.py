"""Standard errors over crossed seeds and images: every seed is tested on the same images.

A mean over S seeds varies because other trainings give other networks and because other test images would have been
drawn. Radiology knows the design as many readers reading the same cases. With d_s the value of seed s (of a metric, or
of its difference between two methods), MS their sample variance and c the covariance that two seeds owe to their common
images, Obuchowski and Rockette's estimate is

    variance = max(MS, v - c) / S + max(c, 0)

MS holds the spread of trainings and what images do to each seed alone; nothing is counted twice. c and v, the variance
that one seed owes to its images, come from the jackknife over images (:func:`_jackknife`), so there is no random draw
anywhere here. That MS can't be less than v - c is ours: a few seeds often agree by chance, and images are many enough
to tell. A single seed therefore has the standard error of its images, and nothing is said of other trainings.

Degrees of freedom are Hillis's, variance² / ((MS / S)² / (S - 1)), with a like term for every class of n images,
c_class² / (n - 1), because our classes are small and his cases are many. They stay so where v - c stands for MS: to
count it as known whenever it happens to be larger would make intervals too short.

References
----------
N. Obuchowski, H. Rockette (1995), Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests,
Communications in Statistics - Simulation and Computation 24.
S. Hillis (2007), A comparison of denominator degrees of freedom methods for multiple observer ROC analysis,
Statistics in Medicine 26.
B. Efron, C. Stein (1981), The jackknife estimate of variance, Annals of Statistics 9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from fer_bench.stacks import Stacked, Stratum, confusions, strata

CHUNK = 500_000  # matrix cells held at once: 4 MB of floats


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its standard error; shares, not percent.

    Attributes
    ----------
    value : float
        Mean over seeds.
    error : float
        Standard error over trainings and images; over images alone for one seed.
    freedom : float
        Degrees of freedom of the t-distribution; infinite where nothing was estimated from few values.
    seeds, images : float
        The two parts of ``error ** 2``: max(MS, v - c) / S, and the covariance c that seeds owe to common images.
    """

    value: float
    error: float
    freedom: float
    seeds: float
    images: float

    @property
    def p(self) -> float:
        """Two-sided p-value against zero; NaN where nothing varies, so that nothing tells chance from truth."""
        if round(self.value, 12) == 0:
            return 1.0
        if not self.error > 0:
            return float("nan")
        return float(2 * special.stdtr(self.freedom, -abs(self.value) / self.error))

    def limits(self, level: float) -> tuple[float, float]:
        """Both ends of the t-interval."""
        half = self.error * float(special.stdtrit(self.freedom, 0.5 + level / 2)) if self.error > 0 else self.error
        return self.value - half, self.value + half


def estimates(
    labels: np.ndarray,
    stack: np.ndarray,
    contrast: np.ndarray,
    metrics: Mapping[str, Stacked],
    classes: int,
    clusters: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """Estimates of each metric's contrast over methods, averaged over seeds.

    Parameters
    ----------
    labels : ndarray [n]
        True classes.
    stack : ndarray [G, S, n]
        Predicted classes of G methods with S seeds; -1 where an image was not seen.
    contrast : ndarray [G]
        Weights of the methods: ``[1]`` for one, ``[1, -1]`` for a difference.
    metrics : mapping
        Name to function of a stack of matrices [..., C, C] giving [...].
    clusters : ndarray [n], optional
        Images that are one unit of sampling, as in :func:`fer_bench.stacks.strata`.
    """
    groups, seeds, n = stack.shape
    runs = stack.reshape(groups * seeds, n)
    seen = confusions(labels, runs, classes)
    parts = [_left_out(stratum, seen) for stratum in strata(labels, runs, classes, clusters)]

    def contrasted(values: np.ndarray) -> np.ndarray:
        return np.tensordot(values.reshape(len(values), groups, seeds), contrast, (1, 0))

    out = {}
    for name, metric in metrics.items():
        left = [part.values(metric) for part in parts]
        covariances = [_jackknife(contrasted(values), counts) for values, counts in left]
        out[name] = combine(contrasted(metric(seen)[None])[0], covariances, [part.units for part in parts])
    return out


def combine(values: np.ndarray, covariances: list[np.ndarray], units: list[int]) -> Estimate:
    """The estimate from one value a seed [S] and, for each stratum, the covariance [S, S] owed to its `units`.

    Seeds whose value is NaN are left out.
    """
    known = np.isfinite(values)
    values, seeds = values[known], int(known.sum())
    if not seeds:
        return Estimate(value=np.nan, error=np.nan, freedom=np.nan, seeds=np.nan, images=np.nan)
    parts = np.stack([c[np.ix_(known, known)] for c in covariances])
    alone = np.trace(parts, axis1=1, axis2=2) / seeds  # by stratum: what its images do to one seed
    common = (parts.sum((1, 2)) - seeds * alone) / max(1, seeds * (seeds - 1))  # and to two seeds alike
    spread, least = float(values.var(ddof=1)) if seeds > 1 else 0.0, float((alone - common).sum())
    between, images = max(spread, least) / seeds, max(float(common.sum()), 0.0)
    doubt = between**2 / (seeds - 1) if seeds > 1 else 0.0
    by_stratum = common if seeds > 1 else alone
    doubt += float((by_stratum**2 / np.maximum(np.array(units) - 1, 1)).sum())
    # Rounded, so that seeds of one value have no spread whatever the order of the sums.
    error = round((between + images) ** 0.5, 12)
    freedom = (between + images) ** 2 / doubt if doubt > 0 else np.inf
    return Estimate(value=float(values.mean()), error=error, freedom=float(freedom), seeds=between, images=images)


class _LeftOut(Protocol):
    """What the runs score without each unit of a stratum in turn."""

    @property
    def units(self) -> int:
        """Number of units."""

    def values(self, metric: Stacked) -> tuple[np.ndarray, np.ndarray]:
        """The metric of the R runs without a unit [u, R], and how many units have the values of each row [u]."""


@dataclass(frozen=True, eq=False)
class _Images:
    """Units that are images of one class: without an image, a run's matrix depends on its answer to it alone.

    Attributes
    ----------
    matrices : ndarray [C + 1, R, C, C]
        The matrices without an image that was answered so; the last for an image that was not seen.
    answers : ndarray [U, R]
        Answers to each image, C where it was not seen.
    """

    matrices: np.ndarray
    answers: np.ndarray

    @property
    def units(self) -> int:
        return len(self.answers)

    def values(self, metric: Stacked) -> tuple[np.ndarray, np.ndarray]:
        by_answer = metric(self.matrices)
        if (by_answer == by_answer[0]).all():  # a recall of another class
            return by_answer[:1], np.array([self.units])
        return np.take_along_axis(by_answer, self.answers, axis=0), np.ones(self.units)


@dataclass(frozen=True, eq=False)
class _Clusters:
    """Units of any kind, equal ones merged."""

    seen: np.ndarray
    rows: np.ndarray
    cells: np.ndarray
    counts: np.ndarray

    @property
    def units(self) -> int:
        return int(self.counts.sum())

    def values(self, metric: Stacked) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([metric(left) for left in self._without_each()]), self.counts

    def _without_each(self) -> Iterator[np.ndarray]:
        """The matrices [u, R, C, C] without each unit in turn, some units at a time."""
        step = max(1, CHUNK // self.seen.size)
        for start in range(0, len(self.cells), step):
            cells = self.cells[start : start + step]
            left = np.repeat(self.seen[None], len(cells), axis=0)
            left[:, :, self.rows] -= cells
            yield left


def _left_out(stratum: Stratum, seen: np.ndarray) -> _LeftOut:
    classes = stratum.classes
    if stratum.single:
        matrices = np.repeat(seen[None], classes + 1, axis=0)
        answer = np.arange(classes)
        matrices[answer, :, stratum.rows[0], answer] -= 1
        answers = stratum.answers.T
        # An answer that a run never gave leaves -1 in a matrix that nobody asks for.
        return _Images(np.maximum(matrices, 0), np.where(answers < 0, classes, answers))
    cells = np.moveaxis(stratum.cells, (3, 2), (0, 1))
    units, counts = np.unique(cells.reshape(len(cells), -1), axis=0, return_counts=True)
    return _Clusters(seen, stratum.rows, units.reshape(-1, *cells.shape[1:]), counts)


def _jackknife(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Covariance [S, S] of the seeds' values under sampling of a stratum's units; exact for recalls and their means.

    `values` [u, S] are those without a unit, `counts` [u] how many units leave the same. One unit alone says nothing of
    its kind: its covariance is 0, and so is that of a seed whose value is not defined without some unit.
    """
    n = counts.sum()
    off = np.where(np.isfinite(values).all(0), values - counts @ values / n, 0.0)
    if not off.any():
        return np.zeros((values.shape[1],) * 2)
    return (off * counts[:, None]).T @ off * (n - 1) / n
