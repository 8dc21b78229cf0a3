"""All numbers of a report, computed once from a :class:`~fer_bench.reports.records.StudyData`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np

from fer_bench import metrics, stats
from fer_bench.groups import Groups, head_middle_tail
from fer_bench.reports.records import MethodRuns, Run, StudyData
from fer_bench.stats import Interval

MIN_SEEDS = 5  # fewer trainings can't tell a gain from training noise (facts/claims.md, finding 6)
ALPHA = 0.05
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
    verdicts : dict
        Verdicts of the two gains that the headline speaks of.
    leak : dict
        Score name to :class:`Leak`; empty where no per-epoch predictions were kept.
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
    pairs: int
    verdicts: dict[str, Verdict]
    leak: dict[str, Leak]

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


def group_recall(matrices: np.ndarray, members: tuple[int, ...]) -> np.ndarray:
    """Mean recall of some classes [...], from confusion matrices [..., C, C]; NaN where none of them has images."""
    recalls = stats.recalls(matrices)[..., list(members)]
    known = np.isfinite(recalls)
    total = known.sum(-1)
    return np.divide(np.where(known, recalls, 0.0).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)


def recall_key(name: str) -> str:
    """Name under which the recall of class `name` is kept among the gains."""
    return f"recall:{name}"


def compute(study: StudyData, draws: int = stats.DRAWS) -> Numbers:
    """Compute everything a report shows."""
    rarest = recall_key(study.classes[study.order[0]])
    headline = (rarest, "mean_recall")
    parts = {m.label: _gains(study, m, draws) for m in study.methods}
    verdicts = _verdicts(study, parts, headline)
    methods = [_numbers(study, m, *parts[m.label], verdicts[m.label], draws) for m in study.methods]
    return Numbers(study, tuple(methods), headline)


def _numbers(
    study: StudyData, method: MethodRuns, gains: dict, pairs: int, verdicts: dict[str, Verdict], draws: int
) -> MethodNumbers:
    seeds, predictions = study.predictions(method.label)
    classes = len(study.classes)
    matrices = stats.confusions(study.labels, predictions, classes)
    recalls = stats.recalls(matrices)
    with np.errstate(invalid="ignore"):
        sizes = matrices.sum(2).mean(0)
        mean = np.array([r[np.isfinite(r)].mean() if np.isfinite(r).any() else np.nan for r in recalls.T])
    return MethodNumbers(
        label=method.label,
        transductive=method.transductive,
        seeds=seeds,
        matrix=matrices.mean(0),
        by_seed={name: score(matrices) for name, score in stats.STACKED.items()},
        recall_by_seed=recalls,
        scores=stats.bootstrap(study.labels, predictions, classes=classes, draws=draws, names=("seeds-images",)),
        recall=tuple(stats.wilson(m * n, round(n)) for m, n in zip(mean, np.rint(sizes), strict=True)),
        gains=gains,
        pairs=pairs,
        verdicts=verdicts,
        leak=_leak(method),
    )


def _gains(study: StudyData, method: MethodRuns, draws: int) -> tuple[dict[str, Interval], int]:
    """Paired gains over the reference and the number of shared seeds."""
    if study.reference is None or method.label == study.reference:
        return {}, 0
    seeds, ours = study.predictions(method.label)
    theirs, reference = study.predictions(study.reference)
    shared = sorted(set(seeds) & set(theirs))
    if not shared:
        return {}, 0
    wanted = dict(stats.STACKED)
    wanted |= {recall_key(name): stats.recall_of(i) for i, name in enumerate(study.classes)}
    wanted |= {group_key(n): partial(group_recall, members=m) for n, m in groups_of(study).members.items()}
    gains = stats.bootstrap_difference(
        study.labels,
        ours[[seeds.index(s) for s in shared]],
        reference[[theirs.index(s) for s in shared]],
        wanted,
        classes=len(study.classes),
        draws=draws,
        names=("seeds-images",),
    )
    return gains, len(shared)


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


def _leak(method: MethodRuns) -> dict[str, Leak]:
    pairs = [p for r in method.runs if (p := _epoch_scores(r)) is not None]
    if not pairs:
        return {}
    return {n: Leak(np.array([h[n] for h, _ in pairs]), np.array([o[n] for _, o in pairs])) for n in metrics.SCORES}


def _epoch_scores(run: Run) -> tuple[dict[str, float], dict[str, float]] | None:
    """Scores at the selected epoch and the best over all candidate epochs, both on test."""
    epochs = run.array("test_epochs")
    if epochs is None or epochs.ndim != 2 or epochs.shape[1] != len(run.labels) or not len(epochs):
        return None
    classes = len(run.data["classes"])
    if epochs.max() >= classes:
        return None
    each = [metrics.confusion(run.labels, e, classes) for e in epochs]
    selected = metrics.confusion(run.labels, run.predictions, classes)
    honest = {n: score(selected) for n, score in metrics.SCORES.items()}
    oracle = {n: max(honest[n], *(score(m) for m in each)) for n, score in metrics.SCORES.items()}
    return honest, oracle
