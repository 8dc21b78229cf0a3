"""Standard errors over crossed seeds and images: all seeds are tested on the same images.

A mean over S seeds varies because other trainings would give other networks, and because other test images might have
been drawn. Radiology knows the design as several readers who read the same cases. Let d_s be the value of seed s (of a
score, or of a paired difference of two methods), MS the sample variance of the d_s, and c the covariance between two
seeds that comes from testing them on the same images. The estimate of Obuchowski and Rockette is

    variance = max(MS, v - c) / S + max(c, 0)

MS includes the variance between trainings and what the images contribute to each seed alone, so nothing is counted
twice. The jackknife over images (:func:`jackknife`) gives c, and v, the variance of one seed due to its images; nothing
here is random. The lower bound v - c of MS is our addition: a few seeds often agree by chance, while the images are
numerous enough to estimate v - c well. With a single seed, the standard error is that of its images, and says nothing
about other trainings.

The degrees of freedom are Hillis's, variance² / ((MS / S)² / (S - 1)), with a similar term for every class of n images,
c_class² / (n - 1), because our classes are small where his cases were many; MS is max(MS, v - c) there as well.

Where trainings have different training sets as well, draws of one thinned set, three things vary: subsets, seeds and
images. :mod:`fer_bench.stats.crossed_subsets` says what then takes the place of MS.

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

from fer_bench.stats.confusion import Margins, Score, accuracy, depends_on
from fer_bench.stats.crossed_subsets import MeanSquares, several, table_of
from fer_bench.stats.sampling import Stratum, Truth, strata

CHUNK = 500_000  # numbers held at once: 4 MB of floats


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over trainings with its standard error; shares, not percent.

    Trainings are seeds, or seeds on several subsets of the training images.

    Attributes
    ----------
    value : float
        Mean over trainings.
    standard_error : float
        Over trainings and images; over images only for one seed.
    var_seeds, var_images : float
        The two parts of ``standard_error ** 2``: max(MS, v - c) / S, and the covariance c due to common images. With
        several subsets, the first is the bounded sum of mean squares of :mod:`fer_bench.stats.crossed_subsets`,
        divided by the number of trainings.
    var_excess : float
        The part of `var_seeds` that images do not explain: max(MS - v + c, 0) / S.
    n_seeds : int
        Number of trainings: seeds, times subsets.
    df_trainings : float
        Degrees of freedom with which the trainings' part is estimated: S - 1, or those of the sum of mean squares.
    df_term_images : float
        What images add to the denominator of the degrees of freedom: the sum of c_class² / (n - 1).
    """

    value: float
    standard_error: float
    var_seeds: float
    var_images: float
    var_excess: float
    n_seeds: int
    df_term_images: float
    df_trainings: float

    def df_for(self, var_trainings: float) -> float:
        """Degrees of freedom if this part of the variance is estimated from the trainings alone.

        Infinite where no part was estimated from few values.
        """
        denominator = self.df_term_images + var_trainings**2 / self.df_trainings
        return (self.var_seeds + self.var_images) ** 2 / denominator if denominator > 0 else np.inf

    @property
    def df(self) -> float:
        """Degrees of freedom of the standard error."""
        return self.df_for(self.var_seeds)

    @property
    def p(self) -> float:
        """Two-sided p-value against zero, which inverts :meth:`limits`; NaN where they are."""
        if round(self.value, 12) == 0:
            return 1.0
        if not self.standard_error > 0:
            return float("nan")
        return float(2 * special.stdtr(self.df, -abs(self.value) / self.standard_error))

    def limits(self, level: float) -> tuple[float, float]:
        """Both limits of the t-interval: the values that the test does not reject.

        NaN where nothing varies, so that chance can't be judged; a difference of 0 is then exactly 0.
        """
        error, value = self.standard_error, round(self.value, 12)
        if not error > 0:
            return (0.0, 0.0) if value == 0 else (float("nan"), float("nan"))
        half = error * -float(special.stdtrit(self.df, (1 - level) / 2))
        return value - half, value + half


@dataclass(frozen=True, eq=False)
class Jackknife:
    """Scores of S trainings by name, on all images and without each sampling unit in turn.

    Attributes
    ----------
    values : dict
        Name to values [S]; NaN where a score is not defined.
    left_out : dict
        Name to values [U, S] by the number of the stratum, without each of its U units, for the strata on which the
        score depends; a single row where no unit makes a difference.
    units : tuple of int
        U of each stratum.
    effective_units : dict
        Name to the number of units behind a score: as many as there would be if each weighed as much as the heaviest.
    units_are_images : bool
        Whether every unit is one image, drawn within its class.
    subsets : int ndarray [S], optional
        The subset of the training images of each training; one for all if omitted.
    """

    values: dict[str, np.ndarray]
    left_out: dict[str, dict[int, np.ndarray]]
    units: tuple[int, ...]
    effective_units: dict[str, float]
    units_are_images: bool
    subsets: np.ndarray | None = None

    def __sub__(self, other: Jackknife) -> Jackknife:
        """The paired difference: training s of both has the same seed and subset, and was tested on the same images."""
        left_out = {
            name: {stratum: values - other.left_out[name][stratum] for stratum, values in parts.items()}
            for name, parts in self.left_out.items()
        }
        values = {name: values - other.values[name] for name, values in self.values.items()}
        return replace(self, values=values, left_out=left_out)

    def only(self, name: str) -> Jackknife:
        """The same with one of the scores."""
        return replace(self, values={name: self.values[name]}, left_out={name: self.left_out[name]})

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Means over trainings with their standard errors; seeds whose value is NaN are left out.

        With several subsets, so are other trainings without which the cross of subsets and seeds is complete.
        """
        return {name: self._estimate(name) for name in self.values}

    def _estimate(self, name: str) -> Estimate:
        values = self.values[name]
        known = np.isfinite(values)
        if not known.any():
            nan = np.nan
            return Estimate(
                value=nan, standard_error=nan, var_seeds=nan, var_images=nan, var_excess=nan, n_seeds=0,
                df_term_images=nan, df_trainings=nan,
            )  # fmt: skip
        left_out = self.left_out[name]
        if self.subsets is not None:
            table = table_of(self.subsets, known)
            if min(table.shape) > 1:
                parts = [(left[:, table], self.units[stratum]) for stratum, left in left_out.items()]
                return combine_crossed(values[table], parts)
            known = np.isin(np.arange(len(values)), table)
        alone, together = np.reshape([_variances(of[:, known]) for of in left_out.values()], (-1, 2)).T
        return combine(values[known], alone, together, np.array([self.units[stratum] for stratum in left_out]))


def combination(samples: Sequence[Jackknife], weights: Sequence[float]) -> Jackknife:
    """A linear combination of samples, such as a contrast over several training sets: sum of weights[k] samples[k].

    Training s of all samples has the same seed, and unit u is the same unit of all, so that a seed or a unit that helps
    everywhere cancels out of a contrast. ``combination([a, b], [1, -1])`` is ``a - b``. The interval is
    :func:`fer_bench.stats.intervals.t_intervals`.

    Raises
    ------
    ValueError
        The samples differ in their trainings or units.
    """
    first = samples[0]
    if len(samples) != len(weights):
        raise ValueError(f"{len(samples)} samples and {len(weights)} weights")
    for other in samples[1:]:
        alike = all(values.shape == other.values[name].shape for name, values in first.values.items())
        if other.units != first.units or not alike:
            raise ValueError("the samples differ in their trainings or in their sampling units")
    left_out = {
        name: {stratum: _sum(weights, [of.left_out[name][stratum] for of in samples]) for stratum in parts}
        for name, parts in first.left_out.items()
    }
    values = {name: _sum(weights, [of.values[name] for of in samples]) for name in first.values}
    return replace(first, values=values, left_out=left_out)


def _sum(weights: Sequence[float], parts: Sequence[np.ndarray]) -> np.ndarray:
    """The weighted sum of arrays, some of which may have a single row for all units."""
    total = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = total + weight * part
    return total


def combine(values: np.ndarray, alone: np.ndarray, together: np.ndarray, units: np.ndarray) -> Estimate:
    """The estimate from the values of S seeds and their variances due to the sampling of images.

    Parameters
    ----------
    values : ndarray [S]
        Values of the seeds.
    alone, together : ndarray [T]
        For each stratum, the variance due to its images of one seed, and of the mean over seeds.
    units : ndarray [T]
        Units of each stratum.
    """
    seeds = len(values)
    # The covariance of two seeds due to the same images; for a single seed, all of its variance.
    common = (seeds * together - alone) / (seeds - 1) if seeds > 1 else alone
    spread, least = float(values.var(ddof=1)) if seeds > 1 else 0.0, float((alone - common).sum())
    var_seeds, var_images = max(spread, least) / seeds, max(float(common.sum()), 0.0)
    return Estimate(
        value=float(values.mean()),
        # Rounded: seeds of one value have no spread, whatever the order of the sums.
        standard_error=round((var_seeds + var_images) ** 0.5, 12),
        var_seeds=var_seeds,
        var_images=var_images,
        var_excess=var_seeds - min(var_seeds, max(least, 0.0) / seeds),
        n_seeds=seeds,
        df_term_images=float((common**2 / np.maximum(units - 1, 1)).sum()),
        df_trainings=max(1, seeds - 1),
    )


def combine_crossed(values: np.ndarray, parts: Sequence[tuple[np.ndarray, int]]) -> Estimate:
    """The estimate from trainings of R subsets and S seeds, two of each at least.

    Parameters
    ----------
    values : ndarray [R, S]
    parts : sequence of tuple
        For each stratum, the values without each of its units [U, R, S] (or a single row where no unit makes a
        difference), and the number of units.
    """
    trainings, nothing = values.size, MeanSquares(subset=0.0, seed=0.0, rest=0.0)
    explained, common, term = nothing, 0.0, 0.0
    for left_out, units in parts:
        off, scale = _deviations(left_out)
        of_images = MeanSquares.of(off).scaled(scale)
        # The covariance of trainings that share neither subset nor seed: the variance of the mean less its other part.
        covariance = scale * float((off.mean((1, 2)) ** 2).sum()) - of_images.plain_sum / trainings
        explained, common, term = explained + of_images, common + covariance, term + covariance**2 / max(units - 1, 1)
    found = MeanSquares.of(values)
    bounded = found.at_least(explained)
    var_seeds, var_images = bounded.bounded_sum / trainings, max(common, 0.0)
    return Estimate(
        value=float(values.mean()),
        standard_error=round((var_seeds + var_images) ** 0.5, 12),
        var_seeds=var_seeds,
        var_images=var_images,
        var_excess=min(found.beyond(explained).bounded_sum / trainings, var_seeds),
        n_seeds=trainings,
        df_term_images=term,
        df_trainings=bounded.df_of_sum(*values.shape),
    )


def jackknife(
    truth: Truth, predictions: np.ndarray, scores: Mapping[str, Score], subsets: np.ndarray | None = None
) -> Jackknife:
    """Scores of the trainings with all units and without each unit in turn.

    Parameters
    ----------
    truth : Truth
        The test set, with its sampling units.
    predictions : ndarray [S, n]
        Predicted classes of S trainings; -1 where a training has not seen an image.
    scores : mapping
        Name to function of a stack of matrices, or of their margins, giving [...].
    subsets : int ndarray [S], optional
        The subset of the training images of each training. Every subset must have the same seeds in the same order.
        Every row is a seed on one and the same training set if omitted.
    """
    full = Margins.count(truth.labels, predictions, truth.classes)
    parts = list(strata(truth, predictions))
    left_out: dict[str, dict[int, np.ndarray]] = {name: {} for name in scores}
    for stratum, (part, affected) in enumerate(zip(parts, _affected_scores(parts, scores), strict=True)):
        without = _without_images if part.one_class_of_images else _without_clusters
        for name, values in without(part, full, affected).items():
            left_out[name][stratum] = values
    weights = _UnitWeights.of(truth, predictions, full)
    return Jackknife(
        values={name: score(full) for name, score in scores.items()},
        left_out=left_out,
        units=tuple(part.size for part in parts),
        effective_units={name: weights.effective_units(score) for name, score in scores.items()},
        units_are_images=all(part.one_class_of_images for part in parts),
        subsets=several(subsets),
    )


def _affected_scores(parts: Sequence[Stratum], scores: Mapping[str, Score]) -> list[dict[str, Score]]:
    """For each stratum, the scores that depend on it."""
    strata_of: dict[int, list[int]] = {}
    for stratum, part in enumerate(parts):
        for label in part.present.tolist():
            strata_of.setdefault(label, []).append(stratum)
    affected: list[dict[str, Score]] = [{} for _ in parts]
    for name, score in scores.items():
        classes = depends_on(score)
        all_strata = range(len(parts))
        for stratum in all_strata if classes is None else {s for c in classes for s in strata_of.get(c, ())}:
            affected[stratum][name] = score
    return affected


def _variances(left_out: np.ndarray) -> tuple[float, float]:
    """Jackknife variance of one seed, mean over seeds, and of the mean over seeds; `left_out` is [U, S].

    Exact for recalls and their means. A single unit says nothing about its kind: its variance is 0. So is the variance
    of a seed whose value is undefined without some unit.
    """
    off, scale = _deviations(left_out)
    together = off.mean(1)
    return scale * float(np.einsum("us,us->", off, off)) / off.shape[1], scale * float(together @ together)


def _deviations(left_out: np.ndarray) -> tuple[np.ndarray, float]:
    """Deviations [U, ...] of the values without each unit, and what the sum of their squares is multiplied by."""
    units = len(left_out)
    off = np.where(np.isfinite(left_out).all(0), left_out - left_out.mean(0), 0.0)
    return off, (units - 1) / units


def _without_images(stratum: Stratum, full: Margins, scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    """Where units are images of one class: a run's margins without an image depend only on its prediction for it."""
    label, given = stratum.present[0], stratum.predictions_by_unit.T
    answers = np.unique(given[given >= 0])
    place = np.where(given < 0, len(answers), np.searchsorted(answers, given))
    by_answer: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    step = max(1, CHUNK // full.correct.size)
    for start in range(0, len(answers), step):
        some = answers[start : start + step]
        left = full.repeat(len(some))
        left.correct[some == label, :, label] -= 1
        left.support[:, :, label] -= 1
        left.predicted[np.arange(len(some)), :, some] -= 1
        # A class that a run never predicted leaves -1 in margins that are not used.
        left = left.map(lambda array: np.maximum(array, 0))
        for name, score in scores.items():
            by_answer[name].append(score(left))
    out = {}
    for name, score in scores.items():
        values = np.concatenate([*by_answer[name], score(full)[None]])  # the last for an image that was not seen
        same = (values == values[-1]).all()
        out[name] = values[:1] if same else np.take_along_axis(values, place, axis=0)
    return out


def _without_clusters(stratum: Stratum, full: Margins, scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    """Where units are clusters of any kind: in chunks, and units that leave the same margins are scored once."""
    step = max(1, CHUNK // (3 * full.correct.size))
    values: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for start in range(0, stratum.size, step):
        added = stratum.contributions(start, min(start + step, stratum.size))
        together = np.stack([added.correct, added.support, added.predicted], axis=1)
        unique, place = np.unique(together.reshape(len(together), -1), axis=0, return_inverse=True)
        correct, support, predicted = np.moveaxis(unique.reshape(-1, *together.shape[1:]), 1, 0)
        left = Margins(full.correct - correct, full.support - support, full.predicted - predicted)
        for name, score in scores.items():
            values[name].append(score(left)[place.ravel()])
    return {name: np.concatenate(parts) for name, parts in values.items()}


@dataclass(frozen=True, eq=False)
class _UnitWeights:
    """How much of a score one sampling unit can change.

    Attributes
    ----------
    pooled : Margins
        The margins [C], summed over seeds.
    usual : ndarray [C]
        The most frequent prediction for each class.
    unit, label : ndarray [K]
        Every pair of a unit that some seed has seen and a class that it contains.
    """

    pooled: Margins
    usual: np.ndarray
    unit: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, truth: Truth, predictions: np.ndarray, full: Margins) -> _UnitWeights:
        seen = (predictions >= 0).any(0)
        unit, label = np.unique(np.stack([truth.units[seen], truth.labels[seen]]), axis=1)
        return cls(full.map(lambda array: array.sum(0)), _usual_predictions(truth, predictions), unit, label)

    def effective_units(self, score: Score) -> float:
        """The number of units behind a score, counted by the heaviest; 0 where no unit matters.

        The weight of a class is the effect of changing one prediction, from correct to wrong or, where none is correct,
        from the usual one to correct, times the number of its predictions; each unit of the class has an even part of
        that. The heaviest unit decides: a recall rests on the units of its class, accuracy on all of them, and the mean
        of C recalls on C times the units of the smallest class, since all unseen errors may lie there. A unit that
        contains several classes counts once.
        """
        classes, own = len(self.usual), depends_on(score)
        units_of = np.bincount(self.label, minlength=classes)
        present = np.flatnonzero(units_of)
        if own is not None:
            present = np.array([c for c in sorted(own) if units_of[c]], dtype=np.int64)
        now = score(self.pooled.repeat(1))
        weight, step = np.zeros(len(present)), max(1, CHUNK // classes)
        for start in range(0, len(present), step):
            some = present[start : start + step]
            row, correct = np.arange(len(some)), self.pooled.correct[some] > 0
            moved = self.pooled.repeat(len(some))
            moved.correct[row, some] += np.where(correct, -1, 1)
            moved.predicted[row, np.where(correct, some, self.usual[some])] -= 1
            moved.predicted[row, np.where(correct, (some + 1) % classes, some)] += 1
            weight[start : start + step] = np.abs(score(moved) - now) * self.pooled.support[some] / units_of[some]
        if not (weight > 0).any():
            return 0.0
        matter = np.isin(self.label, present[weight > 0])
        return min(float(round(1 / weight.max(), 9)), float(len(np.unique(self.unit[matter]))))


def units_of_accuracy(truth: Truth, seen: np.ndarray) -> float:
    """The number of units behind an accuracy on the images that trainings have seen (bool [S, n]); 0 for none."""
    answers = np.where(seen, truth.labels, -1)
    margins = Margins.count(truth.labels, answers, truth.classes)
    return _UnitWeights.of(truth, answers, margins).effective_units(accuracy) if seen.any() else 0.0


def _usual_predictions(truth: Truth, predictions: np.ndarray) -> np.ndarray:
    """The most frequent prediction for each class [C], the first of equal ones; 0 for classes without images."""
    seen, classes = predictions >= 0, truth.classes
    pairs = np.broadcast_to(truth.labels, predictions.shape)[seen] * classes + predictions[seen]
    pairs, often = np.unique(pairs, return_counts=True)
    pairs = pairs[np.lexsort((-pairs, often))]  # of the pairs of one class, the last is kept
    out = np.zeros(classes, dtype=np.int64)
    out[pairs // classes] = pairs % classes
    return out
