"""All numbers of a report, computed once from a :class:`~fer_bench.reports.facts.records.StudyData`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from fer_bench.reports.facts.records import MethodRuns, Run, StudyData
from fer_bench.reports.facts.runs import Training, subsets_of
from fer_bench.reports.facts.tail_area import differences_from
from fer_bench.reports.facts.verdicts import EXCLUDES_0, Family, Judgement, Verdict
from fer_bench.stats import confusion
from fer_bench.stats.bootstrap import Draws, Replicates, replicates
from fer_bench.stats.chance import Chance, against_chance
from fer_bench.stats.class_groups import Groups, head_middle_tail
from fer_bench.stats.confusion import ClassRecall, GroupRecall, Margins, Score, mean_confusion_matrix
from fer_bench.stats.crossed_errors import Estimate, Jackknife, jackknife
from fer_bench.stats.intervals import LEVEL, Interval, difference_estimates, score_differences_at, score_intervals
from fer_bench.stats.sampling import paired

IMPROVED = ("mean_recall", "accuracy")  # scores for which a report gives the probability of improvement
DRAWS = 1000  # of the bootstrap: no verdict depends on it, and it takes most of the time
SCORES = {"accuracy": "accuracy", "mean_recall": "mean-class accuracy", "macro_f1": "macro-F1"}
BEYOND = "beyond:"  # before the key of a difference from the second reference
JUDGED_BEYOND = "mean_recall"  # of these differences, the one that says whether a method beats the second reference


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
        Score name to one value a training: a seed on a subset.
    scores : dict
        Score name, ``recall:<class>`` or ``group:<name>`` to its mean over seeds
        (:func:`fer_bench.stats.intervals.score_intervals`).
    gains : dict
        The same names to the paired gain over the reference (:func:`fer_bench.stats.intervals.score_differences`);
        empty without one.
    resampled : dict
        The gains that the headline speaks of, and that in accuracy, with the percentile intervals of the paired
        bootstrap.
    shared : tuple of Training
        Subsets and seeds shared with the reference.
    improvement : dict
        Score name to the probability that one training is better than one of the reference; empty for one pair.
    spread : dict
        The same names as in `gains` to the variance of the gain and its degrees of freedom.
    beyond : dict
        The same names to the paired difference from the second reference; empty without one.
    judged : dict
        Judgements of the endpoints (:func:`family_of`) by key.
    chance : Chance
        Its answers against those that ignore the image.
    leak : dict
        Score name to :class:`Leak`; empty where no per-epoch predictions were kept.
    epochs : tuple of dict
        For every run that kept them: score name to the scores on the test after each candidate epoch.
    area : Interval or None
        The paired difference from the reference in the mean area under the ROC curve of the tail. It is computed where
        recall of the tail is claimed to rise and there is a second reference.
    """

    runs: MethodRuns
    matrix: np.ndarray
    by_seed: dict[str, np.ndarray]
    recall_by_seed: np.ndarray
    scores: dict[str, Interval]
    gains: dict[str, Interval]
    resampled: dict[str, Interval]
    improvement: dict[str, Interval]
    shared: tuple[Training, ...]
    spread: dict[str, Estimate]
    beyond: dict[str, Interval]
    judged: dict[str, Judgement]
    chance: Chance
    leak: dict[str, Leak]
    epochs: tuple[dict[str, np.ndarray], ...]
    area: Interval | None = None

    @property
    def label(self) -> str:
        """What the study calls it."""
        return self.runs.label

    @property
    def short(self) -> str:
        """What figures call it."""
        return self.runs.short

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The subset and seed of each of its trainings, in the order of `by_seed`."""
        return self.runs.trainings

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, whatever the subset."""
        return self.runs.seeds

    @property
    def pairs(self) -> int:
        """How many trainings it shares with the reference."""
        return len(self.shared)

    @property
    def transductive(self) -> bool:
        """Whether it reads other test images."""
        return self.runs.transductive

    @property
    def ranked(self) -> bool:
        """Whether anything may be claimed of it."""
        return self.runs.ranked

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts of its endpoints by key."""
        return {key: judgement.verdict for key, judgement in self.judged.items()}

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
    """The numbers of all methods, the family of hypotheses, and the gains that the headline speaks of."""

    study: StudyData
    methods: tuple[MethodNumbers, ...]
    family: Family
    headline: tuple[str, ...]

    @property
    def groups(self) -> Groups:
        """Head, middle and tail of the classes by training images."""
        return groups_of(self.study)

    @property
    def second(self) -> str | None:
        """The second reference, where there is one."""
        return second_reference_of(self.study)

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
    """A method's predictions [R, n] by subset and seed, and what its intervals are made of."""

    study: StudyData
    trainings: tuple[Training, ...]
    predictions: np.ndarray
    draws: int

    @cached_property
    def sample(self) -> Jackknife:
        """All metrics, for the intervals of scores and gains."""
        return jackknife(self.study.truth, self.predictions, _scores(self.study), subsets_of(self.trainings))

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
            subsets_of(self.trainings),
        )


@dataclass(frozen=True, eq=False)
class _Gains:
    """What a method gains over the reference, and how often one training of it is better.

    `corrected` has the simultaneous intervals of the endpoints, those beyond the second reference included.
    """

    gains: dict[str, Interval] = field(default_factory=dict)
    corrected: dict[str, Interval] = field(default_factory=dict)
    spread: dict[str, Estimate] = field(default_factory=dict)
    beyond: dict[str, Interval] = field(default_factory=dict)
    resampled: dict[str, Interval] = field(default_factory=dict)
    improvement: dict[str, Interval] = field(default_factory=dict)
    shared: tuple[Training, ...] = ()


def compute(study: StudyData, draws: int = DRAWS) -> Numbers:
    """Compute everything a report shows."""
    family, second = family_of(study), second_reference_of(study)
    with threadpool_limits(1, "blas"):  # of a large report a second process has the other core
        scored = {
            label: _Scored(study, *study.predictions(label), draws) for label in (study.reference, second) if label
        }
        computed = [_numbers(study, family, scored, draws, method) for method in study.methods]
    numbers = Numbers(study, tuple(method for method, _ in computed), family, headline_of(study))
    judged = [replace(m, judged=_judge(numbers, m, corrected)) for m, corrected in computed]
    raising = [m for m in judged if second and m.verdicts.get(group_key("tail")) is Verdict.GAIN]
    tail = numbers.groups.members.get("tail", ())
    areas = differences_from(study, tail, study.reference, {m.label: m.shared for m in raising})
    return replace(numbers, methods=tuple(replace(m, area=areas.get(m.label)) for m in judged))


def headline_of(study: StudyData) -> tuple[str, ...]:
    """What the first sentences of a report speak of: recall of the rarest class and of the tail, and the mean.

    The tail is left out where it is the rarest class alone, or where the classes form no groups.
    """
    rarest = recall_key(study.classes[rarest_of(study)])
    tail = groups_of(study).members.get("tail", ())
    return (rarest, *([group_key("tail")] if len(tail) > 1 else []), "mean_recall")


def second_reference_of(study: StudyData) -> str | None:
    """The second reference, if it has runs and may be compared; it shifts the decisions of the first."""
    second = study.second_reference
    usable = second not in (None, study.reference) and study.method(str(second)).ranked
    return second if usable else None


def family_of(study: StudyData) -> Family:
    """The one family of hypotheses that a study tests: its methods and their endpoints.

    The primary endpoint of a method is the mean recall of the tail, or mean-class accuracy where the classes form no
    groups. Secondary ones are the recall of every class that has test images, mean-class accuracy, and mean-class
    accuracy against the second reference. The two references are no candidates, nor is a method that is not ranked or
    has fewer than two seeds in common with the reference. A study that is not fair tests nothing.
    """
    second = second_reference_of(study)
    methods: list[str] = []
    if not barred(study):
        theirs = set(study.method(str(study.reference)).trainings)
        for method in study.methods:
            if method.ranked and method.label not in (study.reference, second):
                methods += [method.label] * (len(theirs & set(method.trainings)) > 1)
    return family_with(study, methods, (BEYOND + JUDGED_BEYOND,) if second else ())


def family_with(study: StudyData, tested: Sequence[str], further: tuple[str, ...] = ()) -> Family:
    """The family of what is `tested`, each on the usual endpoints of the study, and on `further` secondary ones."""
    tail = groups_of(study).members.get("tail", ())
    primary = group_key("tail") if tail else "mean_recall"
    same = {recall_key(study.classes[tail[0]]): primary} if len(tail) == 1 else {}
    keys = [recall_key(study.classes[i]) for i in study.order if study.counts["test"][i]]
    secondary = tuple(key for key in (*keys, "mean_recall", *further) if key != primary and key not in same)
    return Family(methods=tuple(tested), primary=primary, secondary=secondary, same=same)


def barred(study: StudyData) -> bool:
    """Whether nothing can be claimed of any method: no fair estimate, or no reference to compare with."""
    return bool(study.watermarks) or study.reference is None or not study.method(study.reference).ranked


def _scores(study: StudyData) -> dict[str, Score]:
    """The scores, the recall of every class, and the mean recall of every group of classes, by key."""
    scores = dict(confusion.SCORES)
    scores |= {recall_key(name): ClassRecall(i) for i, name in enumerate(study.classes)}
    return scores | {group_key(name): GroupRecall(members) for name, members in groups_of(study).members.items()}


def _numbers(
    study: StudyData, family: Family, scored: dict[str, _Scored], draws: int, method: MethodRuns
) -> tuple[MethodNumbers, dict[str, Interval]]:
    """All numbers of a method but its judgements; and its simultaneous intervals, on which these rest."""
    own = scored.get(method.label) or _Scored(study, *study.predictions(method.label), draws)
    known = study.reference in (None, method.label)
    compared = _Gains() if known else _gains(study, family, own, scored)
    epochs = _epoch_scores(study, method.runs)
    numbers = MethodNumbers(
        runs=method,
        matrix=mean_confusion_matrix(study.labels, own.predictions, len(study.classes)),
        by_seed={name: own.sample.values[name] for name in confusion.SCORES},
        recall_by_seed=confusion.recalls(Margins.count(study.labels, own.predictions, len(study.classes))),
        scores=score_intervals(own.sample),
        gains=compared.gains,
        resampled=compared.resampled,
        improvement=compared.improvement,
        shared=compared.shared,
        spread=compared.spread,
        beyond=compared.beyond,
        judged={},
        chance=against_chance(own.sample, study.truth, own.predictions),
        leak=_leak(epochs),
        epochs=tuple(e.scores for e in epochs),
    )
    return numbers, compared.corrected


def _gains(study: StudyData, family: Family, own: _Scored, scored: dict[str, _Scored]) -> _Gains:
    """Paired gains over the reference, of the seeds that both have; and over the second reference."""
    both = _paired(study, own, scored[str(study.reference)])
    if both is None:
        return _Gains()
    ours, reference = both
    drawn = [side.replicates for side in both]
    scores = [side.only(IMPROVED) for side in drawn]
    gains, corrected = _differences(family, ours, reference)
    beyond: dict[str, Interval] = {}
    second = second_reference_of(study)
    pair = None if second is None or scored[second] is own else _paired(study, own, scored[second])
    if pair is not None and len(pair[0].trainings) > 1:
        beyond, further = _differences(family, *pair, BEYOND)
        corrected |= {BEYOND + key: interval for key, interval in further.items()}
    return _Gains(
        gains=gains,
        corrected=corrected,
        spread=difference_estimates(ours.sample, reference.sample),
        beyond=beyond,
        resampled=(drawn[0] - drawn[1]).intervals(),
        improvement=scores[0].improvements(scores[1]) if len(ours.trainings) > 1 else {},
        shared=ours.trainings,
    )


@dataclass(frozen=True, eq=False)
class Difference:
    """A method less another one: gains with unadjusted and with simultaneous intervals by key, and what they share."""

    gains: dict[str, Interval]
    corrected: dict[str, Interval]
    shared: tuple[Training, ...]


def differences(study: StudyData, family: Family, pairs: Sequence[tuple[str, str]]) -> list[Difference | None]:
    """Paired differences between any two methods, given by their labels; None where they share no training."""
    scored = {label: _Scored(study, *study.predictions(label), 0) for label in dict.fromkeys(sum(pairs, ()))}
    out: list[Difference | None] = []
    for label, other in pairs:
        both = _paired(study, scored[label], scored[other])
        out.append(None if both is None else Difference(*_differences(family, *both), both[0].trainings))
    return out


def _paired(study: StudyData, ours: _Scored, other: _Scored) -> tuple[_Scored, _Scored] | None:
    """Both sides on the subsets, seeds and images that both have; None without a shared training."""
    shared = tuple(sorted(set(ours.trainings) & set(other.trainings)))
    if not shared:
        return None
    sides = [s.predictions[[s.trainings.index(t) for t in shared]] for s in (ours, other)]
    if ours.trainings == other.trainings and np.array_equal(sides[0] < 0, sides[1] < 0):
        return ours, other
    one, two = paired(*sides)
    return _Scored(study, shared, one, ours.draws), _Scored(study, shared, two, ours.draws)


def _differences(
    family: Family, ours: _Scored, other: _Scored, prefix: str = ""
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Paired differences by key, and those of the endpoints at the level of their tests.

    `prefix` is what stands before the keys of endpoints that are about this other side.
    """
    alphas = {key: family.alpha(prefix + key) for key in ours.sample.values}
    levels = {key: 1 - alpha for key, alpha in alphas.items() if alpha is not None}
    intervals = score_differences_at(ours.sample, other.sample, {LEVEL, *levels.values()})
    return intervals[LEVEL], {key: intervals[level][key] for key, level in levels.items()}


def _judge(numbers: Numbers, method: MethodNumbers, corrected: dict[str, Interval]) -> dict[str, Judgement]:
    """Judgements of a method's endpoints; a difference does not count if the better side hardly classifies."""
    if not method.gains:
        return {}
    study, second = numbers.study, numbers.second
    gains = method.gains | {BEYOND + key: interval for key, interval in method.beyond.items()}
    ranked = method.ranked and not barred(study) and method.label != second
    out = {}
    for key, judgement in numbers.family.judge(method.label, gains, corrected, ranked=ranked).items():
        against = second if key.startswith(BEYOND) else study.reference
        ahead = method if gains[key].value > 0 else numbers.method(str(against))
        doubtful = judgement.verdict in EXCLUDES_0 and owed_to_chance(study, ahead, key)
        out[key] = replace(judgement, verdict=Verdict.CHANCE) if doubtful else judgement
    return out


def owed_to_chance(study: StudyData, ahead: MethodNumbers, name: str) -> bool:
    """Whether the better side is at chance, or has collapsed into a class that the gain is about."""
    return not ahead.chance.above or bool(ahead.chance.collapsed_into & covered(study, name))


def covered(study: StudyData, name: str) -> frozenset[int]:
    """The classes whose recall a gain is about; none for a score of all classes."""
    kind, _, of = name.partition(":")
    if kind == "recall":
        return frozenset([study.classes.index(of)])
    return frozenset(groups_of(study).members[of]) if kind == "group" else frozenset()


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
