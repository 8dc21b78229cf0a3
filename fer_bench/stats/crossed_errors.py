"""Standard errors over crossed seeds and images: every seed is tested on the same images.

A mean over S seeds varies because other trainings give other networks and because other test images would have been
drawn. Radiology knows the design as many readers reading the same cases. With d_s the value of seed s (of a metric, or
of its difference between two methods), MS their sample variance and c the covariance that two seeds owe to their common
images, Obuchowski and Rockette's estimate is

    variance = max(MS, v - c) / S + max(c, 0)

MS holds the spread of trainings and what images do to each seed alone; nothing is counted twice. c and v, the variance
that one seed owes to its images, come from the jackknife over images (:func:`jackknife`), so there is no random draw
anywhere here. That MS can't be less than v - c is ours: a few seeds often agree by chance, and images are many enough
to tell. A single seed therefore has the standard error of its images, and nothing is said of other trainings.

Degrees of freedom are Hillis's, variance² / ((MS / S)² / (S - 1)), with a like term for every class of n images,
c_class² / (n - 1), because our classes are small and his cases are many. Tests take max(MS, v - c) for his MS.
Intervals take max(MS - v + c, 0): what images explain is known from many of them, and only the rest is in doubt, being
known from few trainings. Tests are the more cautious: equal methods must not be told apart more often than promised.

References
----------
N. Obuchowski, H. Rockette (1995), Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests,
Communications in Statistics - Simulation and Computation 24.
S. Hillis (2007), A comparison of denominator degrees of freedom methods for multiple observer ROC analysis,
Statistics in Medicine 26.
B. Efron, C. Stein (1981), The jackknife estimate of variance, Annals of Statistics 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import special

from fer_bench.stats.confusion import Margins, Stacked, Stratum, depends_on, strata

CHUNK = 500_000  # numbers held at once: 4 MB of floats


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its standard error; shares, not percent.

    Attributes
    ----------
    value : float
        Mean over seeds.
    error : float
        Standard error over trainings and images; over images alone for one seed.
    seeds, images : float
        The two parts of ``error ** 2``: max(MS, v - c) / S, and the covariance c that seeds owe to common images.
    excess : float
        The part of `seeds` that images do not explain: max(MS - v + c, 0) / S.
    trainings : int
        S.
    doubt : float
        The sum of c_class² / (n - 1): the doubt of `images`.
    """

    value: float
    error: float
    seeds: float
    images: float
    excess: float
    trainings: int
    doubt: float

    def freedom_for(self, part: float) -> float:
        """Degrees of freedom if this part of the variance is known from S trainings alone.

        Infinite where nothing was estimated from few values.
        """
        doubt = self.doubt + part**2 / max(1, self.trainings - 1)
        return (self.seeds + self.images) ** 2 / doubt if doubt > 0 else np.inf

    @property
    def freedom(self) -> float:
        """Degrees of freedom of intervals."""
        return self.freedom_for(self.excess)

    @property
    def cautious(self) -> float:
        """Degrees of freedom of tests."""
        return self.freedom_for(self.seeds)

    @property
    def p(self) -> float:
        """Two-sided p-value against zero; NaN where nothing varies, so that nothing tells chance from truth."""
        if round(self.value, 12) == 0:
            return 1.0
        if not self.error > 0:
            return float("nan")
        return float(2 * special.stdtr(self.cautious, -abs(self.value) / self.error))

    def limits(self, level: float) -> tuple[float, float]:
        """Both ends of the t-interval: the values that the test does not reject."""
        half = self.error * float(special.stdtrit(self.cautious, 0.5 + level / 2)) if self.error > 0 else self.error
        return self.value - half, self.value + half


@dataclass(frozen=True, eq=False)
class Jackknife:
    """Metrics of S seeds by name, as seen and without each unit of sampling in turn.

    Attributes
    ----------
    seen : dict
        Name to values [S]; NaN where a metric is not defined.
    left : dict
        Name to values [U, S] by the number of the stratum, without each of its U units, for the strata on which the
        metric depends; one row where no unit makes a difference.
    units : tuple of int
        U of each stratum.
    least : dict
        Name to the number of units that the metric rests on at least: as many as there were if each counted as much as
        the one that counts most.
    single : bool
        Whether every unit is one image.
    """

    seen: dict[str, np.ndarray]
    left: dict[str, dict[int, np.ndarray]]
    units: tuple[int, ...]
    least: dict[str, float]
    single: bool

    def __sub__(self, other: Jackknife) -> Jackknife:
        """The paired difference: seed s of both has met the same images."""
        left = {
            name: {stratum: values - other.left[name][stratum] for stratum, values in parts.items()}
            for name, parts in self.left.items()
        }
        seen = {name: values - other.seen[name] for name, values in self.seen.items()}
        return replace(self, seen=seen, left=left)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Means over seeds with their standard errors; seeds whose value is NaN are left out."""
        return {name: self._estimate(name) for name in self.seen}

    def _estimate(self, name: str) -> Estimate:
        values = self.seen[name]
        known = np.isfinite(values)
        if not known.any():
            nothing = dict.fromkeys(("value", "error", "seeds", "images", "excess", "doubt"), np.nan)
            return Estimate(**nothing, trainings=0)
        left = self.left[name]
        alone, together = np.reshape([_variances(of[:, known]) for of in left.values()], (-1, 2)).T
        return combine(values[known], alone, together, np.array([self.units[stratum] for stratum in left]))


def combine(values: np.ndarray, alone: np.ndarray, together: np.ndarray, units: np.ndarray) -> Estimate:
    """The estimate from the values of S seeds and what sampling of images does to them.

    Parameters
    ----------
    values : ndarray [S]
        Values of the seeds.
    alone, together : ndarray [T]
        For each stratum the variance that one seed owes to its images, and that of the mean over seeds.
    units : ndarray [T]
        Units of each stratum.
    """
    seeds = len(values)
    # What two seeds owe to the same images; one seed owes all that it shows to them.
    common = (seeds * together - alone) / (seeds - 1) if seeds > 1 else alone
    spread, least = float(values.var(ddof=1)) if seeds > 1 else 0.0, float((alone - common).sum())
    between, images = max(spread, least) / seeds, max(float(common.sum()), 0.0)
    return Estimate(
        value=float(values.mean()),
        error=round((between + images) ** 0.5, 12),  # seeds of one value have no spread, whatever the order of the sums
        seeds=between,
        images=images,
        excess=between - min(between, max(least, 0.0) / seeds),
        trainings=seeds,
        doubt=float((common**2 / np.maximum(units - 1, 1)).sum()),
    )


def jackknife(
    labels: np.ndarray,
    predictions: np.ndarray,
    metrics: Mapping[str, Stacked],
    *,
    classes: int,
    clusters: np.ndarray | None = None,
) -> Jackknife:
    """Metrics of the seeds with and without each unit of sampling.

    Parameters
    ----------
    labels : ndarray [n]
        True classes.
    predictions : ndarray [S, n]
        Predicted classes of S seeds; -1 where an image was not seen.
    metrics : mapping
        Name to function of a stack of matrices, or of their margins, giving [...].
    clusters : ndarray [n], optional
        Images that are one unit of sampling, as in :func:`fer_bench.stats.confusion.strata`.
    """
    seen = Margins.counted(labels, predictions, classes)
    parts = list(strata(labels, predictions, classes, clusters))
    left: dict[str, dict[int, np.ndarray]] = {name: {} for name in metrics}
    for stratum, (part, asked) in enumerate(zip(parts, _asked(parts, metrics), strict=True)):
        without = _without_images if part.single else _without_clusters
        for name, values in without(part, seen, asked).items():
            left[name][stratum] = values
    shown, usual = _units_by_class(labels, predictions, clusters), _usual_answers(labels, predictions, classes)
    pooled = seen.map(lambda array: array.sum(0))
    return Jackknife(
        seen={name: metric(seen) for name, metric in metrics.items()},
        left=left,
        units=tuple(part.size for part in parts),
        least={name: _least(metric, pooled, usual, *shown) for name, metric in metrics.items()},
        single=all(part.single for part in parts),
    )


def _asked(parts: Sequence[Stratum], metrics: Mapping[str, Stacked]) -> list[dict[str, Stacked]]:
    """The metrics that depend on each stratum."""
    of: dict[int, list[int]] = {}
    for stratum, part in enumerate(parts):
        for label in part.rows.tolist():
            of.setdefault(label, []).append(stratum)
    asked: list[dict[str, Stacked]] = [{} for _ in parts]
    for name, metric in metrics.items():
        classes = depends_on(metric)
        everywhere = range(len(parts)) if classes is None else {s for label in classes for s in of.get(label, ())}
        for stratum in everywhere:
            asked[stratum][name] = metric
    return asked


def _variances(left: np.ndarray) -> tuple[float, float]:
    """Jackknife variance of one seed, mean over seeds, and of the mean over seeds; `left` is [U, S].

    Exact for recalls and their means. One unit alone says nothing of its kind: its variance is 0, and so is what it
    does to a seed whose value is not defined without some unit.
    """
    units = len(left)
    if units < 2:
        return 0.0, 0.0
    off = np.where(np.isfinite(left).all(0), left - left.mean(0), 0.0)
    scale = (units - 1) / units
    together = off.mean(1)
    return scale * float(np.einsum("us,us->", off, off)) / off.shape[1], scale * float(together @ together)


def _without_images(stratum: Stratum, seen: Margins, metrics: Mapping[str, Stacked]) -> dict[str, np.ndarray]:
    """Where units are images of one class: without an image, a run's margins depend on its answer to it alone."""
    label, given = stratum.rows[0], stratum.answers.T
    answers = np.unique(given[given >= 0])
    place = np.where(given < 0, len(answers), np.searchsorted(answers, given))
    by_answer: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    step = max(1, CHUNK // seen.right.size)
    for start in range(0, len(answers), step):
        some = answers[start : start + step]
        left = seen.repeated(len(some))
        left.right[some == label, :, label] -= 1
        left.true[:, :, label] -= 1
        left.answered[np.arange(len(some)), :, some] -= 1
        # An answer that a run never gave leaves -1 in margins that nobody asks for.
        left = left.map(lambda array: np.maximum(array, 0))
        for name, metric in metrics.items():
            by_answer[name].append(metric(left))
    out = {}
    for name, metric in metrics.items():
        values = np.concatenate([*by_answer[name], metric(seen)[None]])  # the last for an image that was not seen
        same = (values == values[-1]).all()
        out[name] = values[:1] if same else np.take_along_axis(values, place, axis=0)
    return out


def _without_clusters(stratum: Stratum, seen: Margins, metrics: Mapping[str, Stacked]) -> dict[str, np.ndarray]:
    """Where units are clusters of any kind: some at a time, and of those what equal ones leave is scored once."""
    step = max(1, CHUNK // (3 * seen.right.size))
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for start in range(0, stratum.size, step):
        added = stratum.added(start, min(start + step, stratum.size))
        together = np.stack([added.right, added.true, added.answered], axis=1)
        unique, place = np.unique(together.reshape(len(together), -1), axis=0, return_inverse=True)
        right, true, answered = np.moveaxis(unique.reshape(-1, *together.shape[1:]), 1, 0)
        left = Margins(seen.right - right, seen.true - true, seen.answered - answered)
        for name, metric in metrics.items():
            found[name].append(metric(left)[place.ravel()])
    return {name: np.concatenate(values) for name, values in found.items()}


def _units_by_class(
    labels: np.ndarray, predictions: np.ndarray, clusters: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Every unit that a seed has seen with every class that it shows: the units [K] and the classes [K]."""
    seen = (predictions >= 0).any(0)
    units = np.arange(len(labels)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    shown = np.unique(np.stack([units[seen], labels[seen]]), axis=1)
    return shown[0], shown[1]


def _usual_answers(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """The answer that was given to most images of each class [C], the first of equal ones; 0 where there are none."""
    seen = predictions >= 0
    pairs = np.broadcast_to(labels, predictions.shape)[seen] * classes + predictions[seen]
    pairs, often = np.unique(pairs, return_counts=True)
    pairs = pairs[np.lexsort((-pairs, often))]  # of those of one class the last is kept
    out = np.zeros(classes, dtype=np.int64)
    out[pairs // classes] = pairs % classes
    return out


def _least(metric: Stacked, pooled: Margins, usual: np.ndarray, units: np.ndarray, of: np.ndarray) -> float:
    """Units that the metric rests on at least; 0 where it rests on none. `units` [K] show the classes `of` [K].

    A class weighs what one answer to it changes, a right one to a wrong one or, where none is right, the `usual` one to
    the right one, times its answers; one of its units weighs an even part of that. The heaviest unit tells: a recall
    rests on the units of its class, accuracy on all of them, and the mean of C recalls on C times those of the smallest
    class, since all that could be wrong unseen may lie there. Units that show several classes count once.
    """
    classes, own = len(usual), depends_on(metric)
    shown = np.bincount(of, minlength=classes)
    present = np.flatnonzero(shown) if own is None else np.array([c for c in sorted(own) if shown[c]], dtype=np.int64)
    now = metric(pooled.repeated(1))
    weight, step = np.zeros(len(present)), max(1, CHUNK // classes)
    for start in range(0, len(present), step):
        some = present[start : start + step]
        row, right = np.arange(len(some)), pooled.right[some] > 0
        moved = pooled.repeated(len(some))
        moved.right[row, some] += np.where(right, -1, 1)
        moved.answered[row, np.where(right, some, usual[some])] -= 1
        moved.answered[row, np.where(right, (some + 1) % classes, some)] += 1
        weight[start : start + step] = np.abs(metric(moved) - now) * pooled.true[some] / shown[some]
    if not (weight > 0).any():
        return 0.0
    matter = np.isin(of, present[weight > 0])
    return min(float(round(1 / weight.max(), 9)), float(len(np.unique(units[matter]))))
