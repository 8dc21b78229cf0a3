"""All numbers of a report, computed once from a :class:`~fer_bench.reports.records.StudyData`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fer_bench import stats
from fer_bench.groups import Groups, head_middle_tail
from fer_bench.reports.records import MethodRuns, Run, StudyData
from fer_bench.stacks import group_recall
from fer_bench.stats import Interval

MIN_SEEDS = 5  # fewer trainings can't tell a gain from training noise (facts/claims.md, finding 6)
ALPHA = 0.05
THREADS = 2  # that score methods; NumPy lets go of Python's lock, the rest would wait for it
SCORES = {"accuracy": "accuracy", "mean_recall": "mean-class accuracy", "macro_f1": "macro-F1"}


class Verdict(Enum):
    """What may be said of a gain; only GAIN and LOSS are claims."""

    GAIN = "a gain"
    LOSS = "a loss"
    NOISE = "within noise"
    FEW_SEEDS = f"tentative: the interval excludes 0, but fewer than {MIN_SEEDS} seeds do not show training noise"
    NOT_ADJUSTED = "tentative: the interval excludes 0, but not after Holm's correction for all comparisons made here"
    NOT_RANKED = "not ranked"
    UNKNOWN = "not measurable"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the p-value behind it after Holm's correction; None where the method is not ranked."""

    verdict: Verdict
    p: float | None


@dataclass(frozen=True)
class Leak:
    """A score at the selected epoch and at the best epoch on test, one value a run."""

    honest: np.ndarray
    oracle: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """What picking the epoch on test would have added."""
        return self.oracle - self.honest


@dataclass(frozen=True, eq=False)
class MethodNumbers:
    """One method's numbers. Shares, not percent; class arrays are in the order of the data's classes.

    Attributes
    ----------
    matrix : ndarray [C, C]
        Confusion matrix, mean over seeds.
    by_seed : dict
        Score name to one value a seed.
    scores : dict
        Score name to its mean over seeds, with the bootstrap interval over seeds and images.
    recall : tuple of Interval
        Mean recall over seeds with Wilson's interval (sampling of images).
    gains : dict
        Score name, ``recall:<class>`` or ``group:<name>`` to the paired gain over the reference; empty without one.
    pairs : int
        Seeds shared with the reference.
    improvement : dict
        Score name to the probability that one training is better than one of the reference; empty for one pair.
    verdicts : dict
        Verdicts of the two gains that the headline speaks of.
    leak : dict
        Score name to :class:`Leak`; empty where no per-epoch predictions were kept.
    epochs : tuple of dict
        For every run that kept them: score name to the scores on the test after each candidate epoch.
    """

    label: str
    transductive: bool
    seeds: tuple[int, ...]
    matrix: np.ndarray
    by_seed: dict[str, np.ndarray]
    recall_by_seed: np.ndarray
    scores: dict[str, Interval]
    recall: tuple[Interval, ...]
    gains: dict[str, Interval]
    improvement: dict[str, Interval]
    pairs: int
    verdicts: dict[str, Verdict]
    leak: dict[str, Leak]
    epochs: tuple[dict[str, np.ndarray], ...]

    @property
    def mark(self) -> str:
        """⚠ for a method that reads other test images."""
        return " ⚠" if self.transductive else ""


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers of all methods, and what the headline may claim."""

    study: StudyData
    methods: tuple[MethodNumbers, ...]
    headline: tuple[str, ...]

    @property
    def groups(self) -> Groups:
        """Head, middle and tail of the classes by training images."""
        return groups_of(self.study)

    @property
    def compared(self) -> list[MethodNumbers]:
        """Methods that have gains over the reference."""
        return [m for m in self.methods if m.gains]

    def method(self, label: str) -> MethodNumbers:
        """The numbers of the method with this label."""
        return next(m for m in self.methods if m.label == label)


def groups_of(study: StudyData) -> Groups:
    """Head, middle and tail of a study's classes; none, with the reason, where no training counts are known."""
    counts = study.counts.get("train")
    return Groups(reason="no training counts are known") if counts is None else head_middle_tail(counts)


def group_key(name: str) -> str:
    """Name under which the mean recall of a group of classes is kept among the gains."""
    return f"group:{name}"


def recall_key(name: str) -> str:
    """Name under which the recall of class `name` is kept among the gains."""
    return f"recall:{name}"


@dataclass(frozen=True, eq=False)
class _Scored:
    """A method's predictions [S, n] by seed, and their metrics on the draws of the bootstrap."""

    seeds: tuple[int, ...]
    predictions: np.ndarray
    replicates: stats.Replicates


@dataclass(frozen=True, eq=False)
class _Gains:
    """What a method gains over the reference, and how often one training of it is better."""

    gains: dict[str, Interval] = field(default_factory=dict)
    improvement: dict[str, Interval] = field(default_factory=dict)
    pairs: int = 0


def compute(study: StudyData, draws: int = stats.DRAWS) -> Numbers:
    """Compute everything a report shows."""
    rarest = recall_key(study.classes[study.order[0]])
    headline = (rarest, "mean_recall")
    # Each method has a thread, so matrix products take no others: they would wait for one another.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        reference = None if study.reference is None else _scored(study, study.reference, draws)
        methods = list(pool.map(partial(_numbers, study, reference, draws), study.methods))
    verdicts = _verdicts(study, {m.label: (m.gains, m.pairs) for m in methods}, headline)
    return Numbers(study, tuple(replace(m, verdicts=verdicts[m.label]) for m in methods), headline)


def _metrics(study: StudyData) -> dict[str, stats.Stacked]:
    """The scores, the recall of every class, and the mean recall of every group of classes, by key."""
    wanted = dict(stats.STACKED)
    wanted |= {recall_key(name): stats.recall_of(i) for i, name in enumerate(study.classes)}
    return wanted | {group_key(name): group_recall(members) for name, members in groups_of(study).members.items()}


def _options(study: StudyData, draws: int) -> dict[str, Any]:
    """How the study is resampled: one stream for all of it, so that methods meet the same draws."""
    return {"classes": len(study.classes), "draws": draws, "names": ("seeds-images",), "clusters": study.clusters}


def _scored(study: StudyData, label: str, draws: int) -> _Scored:
    seeds, predictions = study.predictions(label)
    found = stats.replicates(study.labels, predictions, _metrics(study), **_options(study, draws))
    return _Scored(seeds, predictions, found)


def _numbers(study: StudyData, reference: _Scored | None, draws: int, method: MethodRuns) -> MethodNumbers:
    """All numbers of a method but the verdicts, which need those of the others."""
    known = reference is not None and method.label == study.reference
    scored = reference if known and reference is not None else _scored(study, method.label, draws)
    compared = _Gains() if known or reference is None else _gains(study, scored, reference, draws)
    matrices = stats.confusions(study.labels, scored.predictions, len(study.classes))
    recalls = stats.recalls(matrices)
    epochs = tuple(e for r in method.runs if (e := _epoch_scores(r)) is not None)
    with np.errstate(invalid="ignore"):
        mean = np.array([r[np.isfinite(r)].mean() if np.isfinite(r).any() else np.nan for r in recalls.T])
    return MethodNumbers(
        label=method.label,
        transductive=method.transductive,
        seeds=scored.seeds,
        matrix=matrices.mean(0),
        by_seed={name: score(matrices) for name, score in stats.STACKED.items()},
        recall_by_seed=recalls,
        scores=scored.replicates.only(stats.STACKED).intervals(),
        recall=tuple(stats.wilson(m * n, n) for m, n in zip(mean, _draws_of_class(study, scored), strict=True)),
        gains=compared.gains,
        improvement=compared.improvement,
        pairs=compared.pairs,
        verdicts={},
        leak=_leak(epochs),
        epochs=tuple(e.scores for e in epochs),
    )


def _draws_of_class(study: StudyData, scored: _Scored) -> list[int]:
    """Test images of each class [C] that count as drawn one by one, mean over seeds; those that belong together count
    as one, which is on the safe side.
    """
    classes, by_seed = len(study.classes), []
    for predicted in scored.predictions:
        of = study.labels[predicted >= 0]
        if study.clusters is not None:
            of = np.unique(study.clusters[predicted >= 0] * classes + of) % classes
        by_seed.append(np.bincount(of, minlength=classes))
    return np.rint(np.mean(by_seed, axis=0)).astype(int).tolist()


def _gains(study: StudyData, ours: _Scored, reference: _Scored, draws: int) -> _Gains:
    """Paired gains over the reference, of the seeds that both have."""
    shared = sorted(set(ours.seeds) & set(reference.seeds))
    if not shared:
        return _Gains()
    sides = [s.predictions[[s.seeds.index(seed) for seed in shared]] for s in (ours, reference)]
    metrics, options = _metrics(study), _options(study, draws)
    if ours.seeds == reference.seeds and np.array_equal(sides[0] < 0, sides[1] < 0):
        a, b = ours.replicates, reference.replicates
    else:
        a, b = (stats.replicates(study.labels, side, metrics, **options) for side in stats.paired(*sides))
    apart: dict[str, Any] = {"classes": len(study.classes), "clusters": study.clusters}
    exact = stats.crossed_difference(study.labels, sides[0], sides[1], metrics, **apart)
    gains = {name: replace(found, p=exact[name].p) for name, found in (a - b).intervals().items()}
    scores = (side.only(stats.STACKED) for side in (a, b))
    return _Gains(gains, next(scores).improvements(next(scores)) if len(shared) > 1 else {}, len(shared))


def _verdicts(study: StudyData, parts: dict, headline: tuple[str, ...]) -> dict[str, dict[str, Verdict]]:
    """Verdicts of the headline gains."""
    found = judge(study, parts, headline)
    return {label: {name: j.verdict for name, j in of.items()} for label, of in found.items()}


def judge(
    study: StudyData, parts: Mapping[str, tuple[Mapping[str, Interval], int]], names: Sequence[str]
) -> dict[str, dict[str, Judgement]]:
    """What may be said of some gains, corrected by Holm for their number over all methods that are ranked.

    Parameters
    ----------
    parts : mapping of method to (gains, shared seeds)
    names : sequence of str
        Keys of the gains that are looked at together.
    """
    barred = bool(study.watermarks) or (study.reference is not None and study.method(study.reference).transductive)
    ranked = [m.label for m in study.methods if parts[m.label][0] and not m.transductive and not barred]
    family = [(label, name) for label in ranked for name in names]
    adjusted = dict(zip(family, stats.holm([parts[m][0][n].p for m, n in family]), strict=True))
    out: dict[str, dict[str, Judgement]] = {}
    for label, (gains, pairs) in parts.items():
        of = {n: (gains[n], adjusted.get((label, n))) for n in (names if gains else ())}
        out[label] = {n: Judgement(_verdict(gain, pairs, p), p) for n, (gain, p) in of.items()}
    return out


def _verdict(gain: Interval, pairs: int, adjusted: float | None) -> Verdict:
    if not gain.known:
        return Verdict.UNKNOWN
    if adjusted is None:
        return Verdict.NOT_RANKED
    if gain.covers(0.0):
        return Verdict.NOISE
    if pairs < MIN_SEEDS:
        return Verdict.FEW_SEEDS
    if not adjusted < ALPHA:
        return Verdict.NOT_ADJUSTED
    return Verdict.GAIN if gain.low > 0 else Verdict.LOSS


@dataclass(frozen=True, eq=False)
class _Epochs:
    """Scores of a run on the test: at the selected epoch, and after every candidate epoch [E]."""

    honest: dict[str, float]
    scores: dict[str, np.ndarray]


def _leak(runs: Sequence[_Epochs]) -> dict[str, Leak]:
    if not runs:
        return {}
    honest = {n: np.array([r.honest[n] for r in runs]) for n in stats.STACKED}
    return {n: Leak(h, np.array([max(r.honest[n], *r.scores[n]) for r in runs])) for n, h in honest.items()}


def _epoch_scores(run: Run) -> _Epochs | None:
    epochs = run.array("test_epochs")
    if epochs is None or epochs.ndim != 2 or epochs.shape[1] != len(run.labels) or not len(epochs):
        return None
    classes = len(run.data["classes"])
    if epochs.max() >= classes:
        return None
    matrices = stats.confusions(run.labels, np.concatenate([run.predictions[None], epochs]), classes)
    scores = {name: score(matrices) for name, score in stats.STACKED.items()}
    return _Epochs({n: float(s[0]) for n, s in scores.items()}, {n: s[1:] for n, s in scores.items()})
