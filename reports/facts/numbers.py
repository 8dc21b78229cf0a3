"""All numbers of a report, computed once from a :class:`~fer_bench.reports.facts.records.StudyData`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from fer_bench.reports.facts.records import MethodRuns, Run, StudyData
from fer_bench.stats import confusion
from fer_bench.stats.bootstrap import Draws, Replicates, replicates
from fer_bench.stats.chance import Chance, against_chance
from fer_bench.stats.class_groups import Groups, head_middle_tail
from fer_bench.stats.confusion import ClassRecall, GroupRecall, Margins, Score, mean_confusion_matrix
from fer_bench.stats.crossed_errors import Jackknife, jackknife
from fer_bench.stats.intervals import Interval, holm, score_differences, score_intervals
from fer_bench.stats.sampling import paired

MIN_SEEDS = 5  # with fewer seeds a gain can't be told from training noise
ALPHA = 0.05
IMPROVED = ("mean_recall", "accuracy")  # scores for which a report gives the probability of improvement
DRAWS = 1000  # of the bootstrap: no verdict depends on it, and it takes most of the time
SCORES = {"accuracy": "accuracy", "mean_recall": "mean-class accuracy", "macro_f1": "macro-F1"}


class Verdict(Enum):
    """The verdict on a gain; only GAIN and LOSS are claims."""

    GAIN = "gain"
    LOSS = "loss"
    NOISE = "within noise"
    FEW_SEEDS = f"tentative: the interval excludes 0, but fewer than {MIN_SEEDS} seeds can't show training noise"
    NOT_ADJUSTED = "tentative: the interval excludes 0, but the p-value is not significant after Holm's correction"
    CHANCE = "not counted: the better side has collapsed or is not significantly better than chance"
    NOT_RANKED = "not ranked"
    UNKNOWN = "not measurable"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the p-value behind it after Holm's correction; None where the method is not ranked."""

    verdict: Verdict
    p: float | None


@dataclass(frozen=True)
class Leak:
    """A score at the selected epoch and at the best epoch on test, one value a run; and among how many epochs."""

    honest: np.ndarray
    oracle: np.ndarray
    candidates: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """What picking the epoch on test would have added."""
        return self.oracle - self.honest


@dataclass(frozen=True, eq=False)
class MethodNumbers:
    """One method's numbers. Shares, not percent; class arrays are in the order of the data's classes.

    Attributes
    ----------
    runs : MethodRuns
        What it was computed from.
    matrix : ndarray [C, C]
        Confusion matrix, mean over seeds.
    by_seed : dict
        Score name to one value a seed.
    scores : dict
        Score name, ``recall:<class>`` or ``group:<name>`` to its mean over seeds
        (:func:`fer_bench.stats.intervals.score_intervals`).
    gains : dict
        The same names to the paired gain over the reference (:func:`fer_bench.stats.intervals.score_differences`);
        empty without one.
    resampled : dict
        The gains that the headline speaks of, and that in accuracy, with the percentile intervals of the paired
        bootstrap.
    pairs : int
        Seeds shared with the reference.
    improvement : dict
        Score name to the probability that one training is better than one of the reference; empty for one pair.
    verdicts : dict
        Verdicts of the two gains that the headline speaks of.
    chance : Chance
        Its answers against those that ignore the image.
    leak : dict
        Score name to :class:`Leak`; empty where no per-epoch predictions were kept.
    epochs : tuple of dict
        For every run that kept them: score name to the scores on the test after each candidate epoch.
    """

    runs: MethodRuns
    seeds: tuple[int, ...]
    matrix: np.ndarray
    by_seed: dict[str, np.ndarray]
    recall_by_seed: np.ndarray
    scores: dict[str, Interval]
    gains: dict[str, Interval]
    resampled: dict[str, Interval]
    improvement: dict[str, Interval]
    pairs: int
    verdicts: dict[str, Verdict]
    chance: Chance
    leak: dict[str, Leak]
    epochs: tuple[dict[str, np.ndarray], ...]

    @property
    def label(self) -> str:
        """What the study calls it."""
        return self.runs.label

    @property
    def transductive(self) -> bool:
        """Whether it reads other test images."""
        return self.runs.transductive

    @property
    def ranked(self) -> bool:
        """Whether anything may be claimed of it."""
        return self.runs.ranked

    @cached_property
    def recall(self) -> tuple[Interval, ...]:
        """Recall of every class."""
        return tuple(interval for key, interval in self.scores.items() if key.startswith(recall_key("")))

    @property
    def mark(self) -> str:
        """The signs beside its label: why it is not ranked, and ∅ where it has collapsed or is at chance."""
        return self.runs.mark + " ∅" * self.chance.doubtful


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
    """Head, middle and tail of the classes that have test images; none, with the reason, where they can't be formed."""
    counts = study.counts
    if "train" not in counts:
        return Groups(reason="the numbers of training images are unknown")
    return head_middle_tail(counts["train"], counts["test"] > 0)


def rarest_of(study: StudyData) -> int:
    """The rarest class in training, the first of equally rare ones, among those that have test images."""
    return next(i for i in study.order if study.counts["test"][i])


def group_key(name: str) -> str:
    """Name under which the mean recall of a group of classes is kept among the gains."""
    return f"group:{name}"


def recall_key(name: str) -> str:
    """Name under which the recall of class `name` is kept among the gains."""
    return f"recall:{name}"


@dataclass(frozen=True, eq=False)
class _Scored:
    """A method's predictions [S, n] by seed, and what its intervals are made of."""

    study: StudyData
    seeds: tuple[int, ...]
    predictions: np.ndarray
    draws: int

    @cached_property
    def sample(self) -> Jackknife:
        """All metrics, for the intervals of scores and gains."""
        return jackknife(self.study.truth, self.predictions, _scores(self.study))

    @cached_property
    def replicates(self) -> Replicates:
        """What a comparison draws; one stream for all of a study, so that methods meet the same draws."""
        study = self.study
        scores = _scores(study)
        # These scores ask only whether a prediction is correct, and two possible predictions are counted faster.
        wrong = np.where(self.predictions < 0, -1, (study.labels + 1) % len(study.classes))
        return replicates(
            study.truth,
            np.where(self.predictions == study.labels, self.predictions, wrong),
            {name: scores[name] for name in ("accuracy", *headline_of(study))},
            Draws(number=self.draws, names=("seeds-images",)),
        )


@dataclass(frozen=True, eq=False)
class _Gains:
    """What a method gains over the reference, and how often one training of it is better."""

    gains: dict[str, Interval] = field(default_factory=dict)
    resampled: dict[str, Interval] = field(default_factory=dict)
    improvement: dict[str, Interval] = field(default_factory=dict)
    pairs: int = 0


def compute(study: StudyData, draws: int = DRAWS) -> Numbers:
    """Compute everything a report shows."""
    with threadpool_limits(1, "blas"):  # of a large report a second process has the other core
        reference = None if study.reference is None else _Scored(study, *study.predictions(study.reference), draws)
        methods = [_numbers(study, reference, draws, method) for method in study.methods]
    headline = headline_of(study)
    judged = judge(study, methods, headline)
    verdicts = {label: {name: j.verdict for name, j in of.items()} for label, of in judged.items()}
    return Numbers(study, tuple(replace(m, verdicts=verdicts[m.label]) for m in methods), headline)


def headline_of(study: StudyData) -> tuple[str, str]:
    """What the first sentences of a report speak of: recall of the rarest class, and mean-class accuracy."""
    return recall_key(study.classes[rarest_of(study)]), "mean_recall"


def _scores(study: StudyData) -> dict[str, Score]:
    """The scores, the recall of every class, and the mean recall of every group of classes, by key."""
    scores = dict(confusion.SCORES)
    scores |= {recall_key(name): ClassRecall(i) for i, name in enumerate(study.classes)}
    return scores | {group_key(name): GroupRecall(members) for name, members in groups_of(study).members.items()}


def _numbers(study: StudyData, reference: _Scored | None, draws: int, method: MethodRuns) -> MethodNumbers:
    """All numbers of a method but the verdicts, which need those of the others."""
    known = reference is not None and method.label == study.reference
    own = reference if known and reference is not None else _Scored(study, *study.predictions(method.label), draws)
    compared = _Gains() if known or reference is None else _gains(study, own, reference, draws)
    epochs = _epoch_scores(study, method.runs)
    return MethodNumbers(
        runs=method,
        seeds=own.seeds,
        matrix=mean_confusion_matrix(study.labels, own.predictions, len(study.classes)),
        by_seed={name: own.sample.values[name] for name in confusion.SCORES},
        recall_by_seed=confusion.recalls(Margins.count(study.labels, own.predictions, len(study.classes))),
        scores=score_intervals(own.sample),
        gains=compared.gains,
        resampled=compared.resampled,
        improvement=compared.improvement,
        pairs=compared.pairs,
        verdicts={},
        chance=against_chance(own.sample, study.truth, own.predictions),
        leak=_leak(epochs),
        epochs=tuple(e.scores for e in epochs),
    )


def _gains(study: StudyData, ours: _Scored, reference: _Scored, draws: int) -> _Gains:
    """Paired gains over the reference, of the seeds that both have."""
    shared = tuple(sorted(set(ours.seeds) & set(reference.seeds)))
    if not shared:
        return _Gains()
    sides = [s.predictions[[s.seeds.index(seed) for seed in shared]] for s in (ours, reference)]
    if ours.seeds != reference.seeds or not np.array_equal(sides[0] < 0, sides[1] < 0):
        ours, reference = (_Scored(study, shared, side, draws) for side in paired(*sides))
    drawn = [side.replicates for side in (ours, reference)]
    scores = [side.only(IMPROVED) for side in drawn]
    return _Gains(
        gains=score_differences(ours.sample, reference.sample),
        resampled=(drawn[0] - drawn[1]).intervals(),
        improvement=scores[0].improvements(scores[1]) if len(shared) > 1 else {},
        pairs=len(shared),
    )


def judge(study: StudyData, methods: Sequence[MethodNumbers], names: Sequence[str]) -> dict[str, dict[str, Judgement]]:
    """Verdicts on some gains, with Holm's correction for their number over all methods that are ranked.

    Parameters
    ----------
    methods : sequence of MethodNumbers
        All methods of the study.
    names : sequence of str
        Keys of the gains that are corrected together.
    """
    barred = bool(study.watermarks) or (study.reference is not None and not study.method(study.reference).ranked)
    ranked = [m for m in methods if m.gains and m.ranked and not barred]
    family = [(m.label, name) for m in ranked for name in names]
    p = [m.gains[name].p for m in ranked for name in names]
    adjusted = dict(zip(family, holm(p), strict=True))
    reference = next((m for m in methods if m.label == study.reference), None)
    out: dict[str, dict[str, Judgement]] = {}
    for method in methods:
        out[method.label] = {}
        for name in names if method.gains else ():
            gain, p_value = method.gains[name], adjusted.get((method.label, name))
            verdict = _verdict(gain, method.pairs, p_value)
            if verdict in EXCLUDES_0 and _owed_to_chance(study, method if gain.value > 0 else reference, name):
                verdict = Verdict.CHANCE
            out[method.label][name] = Judgement(verdict, p_value)
    return out


EXCLUDES_0 = (Verdict.GAIN, Verdict.LOSS, Verdict.FEW_SEEDS, Verdict.NOT_ADJUSTED)


def _owed_to_chance(study: StudyData, ahead: MethodNumbers | None, name: str) -> bool:
    """Whether the better side is at chance, or has collapsed into a class that the gain is about."""
    if ahead is None:
        return False
    return not ahead.chance.above or bool(ahead.chance.collapsed_into & covered(study, name))


def covered(study: StudyData, name: str) -> frozenset[int]:
    """The classes whose recall a gain is about; none for a score of all classes."""
    kind, _, of = name.partition(":")
    if kind == "recall":
        return frozenset([study.classes.index(of)])
    return frozenset(groups_of(study).members[of]) if kind == "group" else frozenset()


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
    honest = {n: np.array([r.honest[n] for r in runs]) for n in confusion.SCORES}
    oracle = {n: np.array([max(r.honest[n], *r.scores[n]) for r in runs]) for n in confusion.SCORES}
    candidates = np.array([len(r.scores["accuracy"]) for r in runs])
    return {n: Leak(honest[n], oracle[n], candidates) for n in confusion.SCORES}


def _epoch_scores(study: StudyData, runs: Sequence[Run]) -> tuple[_Epochs, ...]:
    """Scores of the runs that kept sound predictions of every epoch, runs of one fold at a time."""
    by_run: dict[Run, _Epochs] = {}
    for fold in study.folds:
        kept = [(r, e) for r in runs if r.fold == fold and (e := _epochs(r)) is not None]
        if not kept:
            continue
        answers = np.concatenate([np.concatenate([run.predictions[None], epochs]) for run, epochs in kept])
        margins = Margins.count(kept[0][0].labels, answers, len(study.classes))
        scores = {name: score(margins) for name, score in confusion.SCORES.items()}
        start = 0
        for run, epochs in kept:
            mine = {name: values[start : start + 1 + len(epochs)] for name, values in scores.items()}
            start += 1 + len(epochs)
            by_run[run] = _Epochs({n: float(s[0]) for n, s in mine.items()}, {n: s[1:] for n, s in mine.items()})
    return tuple(by_run[run] for run in runs if run in by_run)


def _epochs(run: Run) -> np.ndarray | None:
    """Predictions of a run on the test after each candidate epoch [E, n]; None where there are no sound ones."""
    epochs = run.array("test_epochs")
    if epochs is None or epochs.ndim != 2 or epochs.shape[1] != len(run.labels) or not len(epochs):
        return None
    if epochs.dtype.kind not in "iu":
        return None
    return epochs if epochs.min() >= 0 and epochs.max() < len(run.data["classes"]) else None
