"""The numbers of a dose-response study of sharing: what ``sharing_dose.py`` shows.

Studies named ``sharing-dose-...`` train the same arms at several doses (the parameter `shared` of the built-in faces).
The people, their expressions and the seeds are the same at every dose, so a difference between two arms can be followed
over the doses, seed by seed and person by person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fer_bench.base.files import canonical_json
from fer_bench.errors import LedgerError
from fer_bench.record.home import Home
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.records import StudyData, load_study
from fer_bench.reports.facts.runs import Training
from fer_bench.reports.facts.scoring import scored_runs
from fer_bench.reports.facts.verdicts import CLAIMS, Verdict
from fer_bench.stats import confusion
from fer_bench.stats.auroc_errors import AUROC, jackknife_of_auroc
from fer_bench.stats.chance import against_chance
from fer_bench.stats.confusion import ClassRecall, Stack
from fer_bench.stats.crossed_errors import Jackknife, combination, jackknife
from fer_bench.stats.intervals import Interval, score_differences, score_intervals, t_intervals

PREFIX = "sharing-dose"
MINORITY = "disgust"  # whose action units the dose is about
REFERENCE, CONTROL, CONTROLLED = "none", "own", "class_prototypes"
ARMS = {  # by share.source
    "batch_mean": "the mean of the batch",
    "class_prototypes": "class prototypes",
    "dictionary": "a dictionary",
    CONTROL: "own features (control)",
    REFERENCE: "no sharing (reference)",
}
MEASURES = {
    "recall": f"recall of {MINORITY}",
    "precision": f"precision of {MINORITY}",
    AUROC: f"AUROC of {MINORITY}",
    "mean_recall": "mean-class accuracy",
}
ALPHA = 0.05
OWN = ("share.source", "share.fusion")  # what arms differ in


@dataclass(frozen=True)
class Precision:
    """The score "precision of class `index`"; it depends on the predictions for all images."""

    index: int

    def __call__(self, matrices: Stack) -> np.ndarray:
        """The precision [...]."""
        return confusion.precisions(matrices)[..., self.index]


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Dose:
    """One study: the dose, 0 to 1, and the labels of its arms by their source of sharing."""

    shared: float
    study: StudyData
    arms: Mapping[str, str]

    @property
    def percent(self) -> str:
        """ "25 %"."""
        return f"{100 * self.shared:g} %"

    @cached_property
    def minority(self) -> int:
        """The place of the rare class."""
        return self.study.classes.index(MINORITY)

    def seeds(self, source: str) -> set[int]:
        """The seeds of an arm."""
        return set(self.study.method(self.arms[source]).seeds)

    def sample(self, source: str, seeds: Sequence[int]) -> Jackknife:
        """All measures of an arm for these seeds, with all people and without each."""
        label, of = self.arms[source], self.minority
        trainings, predictions = self.study.predictions(label)
        rows = [trainings.index(Training(0, seed)) for seed in seeds]
        logits = scored_runs(self.study, label).answers().logits
        if logits is None:
            raise LedgerError(f"the logits of {label} can't be read", where=f"study {self.study.name}")
        scores = {"recall": ClassRecall(of), "precision": Precision(of), "mean_recall": confusion.mean_recall}
        sample = jackknife(self.study.truth, predictions[rows], scores)
        area = jackknife_of_auroc(self.study.truth, logits[rows], [of])
        return replace(sample, values={**sample.values, **area.values}, left_out={**sample.left_out, **area.left_out})

    def doubtful(self, source: str, seeds: Sequence[int]) -> bool:
        """Whether a training of the arm has collapsed, or the arm is not shown to be better than chance."""
        trainings, predictions = self.study.predictions(self.arms[source])
        chosen = predictions[[trainings.index(Training(0, seed)) for seed in seeds]]
        scores = jackknife(self.study.truth, chosen, confusion.SCORES)
        return against_chance(scores, self.study.truth, chosen).doubtful


def read_dose(study: StudyData) -> Dose:
    """The dose and the arms of a study.

    Raises
    ------
    LedgerError
        Its runs have several doses, or two arms share in the same way.
    """
    doses = {float(run.spec["dataset_params"].get("shared", float("nan"))) for run in study.runs}
    if len(doses) > 1 or np.isnan(next(iter(doses))):
        raise LedgerError(f"study '{study.name}' has no single dose (the data set's parameter `shared`)")
    arms: dict[str, str] = {}
    for method in study.methods:
        source = str(method.runs[0].spec["params"].get("share.source"))
        if source in arms:
            raise LedgerError(
                f"study '{study.name}' has two arms with share.source={source}",
                hint="a study of doses has one arm for each source",
            )
        if source in ARMS and method.ranked:
            arms[source] = method.label
    return Dose(doses.pop(), study, arms)


def _settings(study: StudyData) -> str:
    """What the runs of all doses must have in common."""
    parts = set()
    for run in study.runs:
        spec = {k: v for k, v in run.spec.items() if k not in ("seed", "params", "dataset_params")}
        params = {k: v for k, v in run.spec["params"].items() if k not in OWN}
        drawn = {k: v for k, v in run.spec["dataset_params"].items() if k != "shared"}
        parts.add(canonical_json([spec, params, drawn]))
    return "\n".join(sorted(parts))


def _require_alike(doses: Sequence[Dose]) -> None:
    first = doses[0]
    for dose in doses[1:]:
        one, other = first.study, dose.study
        if _settings(one) != _settings(other):
            raise LedgerError(f"studies '{one.name}' and '{other.name}' differ in more than their dose and seeds")
        same = np.array_equal(one.labels, other.labels) and np.array_equal(one.truth.units, other.truth.units)
        if not same:
            raise LedgerError(f"studies '{one.name}' and '{other.name}' were not tested on the same people")
        if dose.shared == first.shared:
            raise LedgerError(f"studies '{one.name}' and '{other.name}' have the same dose, {dose.percent}")
        first = dose


@dataclass(frozen=True, eq=False)
class Doses:
    """Everything that the page is about: doses in rising order, arms and seeds that all of them have."""

    doses: tuple[Dose, ...]
    sources: tuple[str, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def percents(self) -> str:
        """ "0 %, 50 % and 100 %"."""
        return _percents(self.doses)

    @cached_property
    def samples(self) -> dict[tuple[str, float], Jackknife]:
        """The measures of every arm, reference included, at every dose."""
        return {(s, d.shared): d.sample(s, self.seeds) for d in self.doses for s in (*self.sources, REFERENCE)}

    @cached_property
    def doubtful(self) -> set[tuple[str, float]]:
        """Arms at doses where they hardly classify."""
        cases = ((s, d) for d in self.doses for s in (*self.sources, REFERENCE))
        return {(s, d.shared) for s, d in cases if d.doubtful(s, self.seeds)}

    @property
    def contrasts(self) -> list[tuple[str, str]]:
        """Pairs of arms that are compared: each with the reference, and the prototypes with their control."""
        beyond = {CONTROL, CONTROLLED} <= set(self.sources)
        return [*((s, REFERENCE) for s in self.sources), *([(CONTROLLED, CONTROL)] if beyond else [])]

    @property
    def tested(self) -> list[tuple[str, str]]:
        """Those of which something could be claimed: all but the control's own gain."""
        return [pair for pair in self.contrasts if pair[0] != CONTROL]


def load_doses(homes: Sequence[Path]) -> Doses:
    """Read all studies of doses in the ledgers of some homes.

    Raises
    ------
    LedgerError
        There are fewer than two doses, or the studies can't be compared.
    """
    ledgers = [Home(home.resolve()).ledger for home in homes]
    named = [(ledger, name) for ledger in ledgers for name in ledger.studies() if name.startswith(f"{PREFIX}-")]
    found = sorted((read_dose(load_study(ledger, name)) for ledger, name in named), key=lambda d: d.shared)
    doses = [dose for dose in found if REFERENCE in dose.arms]
    notes = [
        f"Study {phrases.code(dose.study.name)} is left out: it lacks a run without sharing (share.source=none), from "
        "which gains are measured."
        for dose in found
        if dose not in doses
    ]
    if len(doses) < 2:
        raise LedgerError(
            f"a dose-response needs two doses or more, and {len(doses)} can be used of the studies {PREFIX}-...",
            where=", ".join(str(ledger.root) for ledger in ledgers),
            hint=" ".join(notes) or None,
            next=f"fer-bench run METHOD... --dataset synthetic --dataset-set shared=0.5 --name {PREFIX}-50",
        )
    _require_alike(doses)
    notes += [f"{dose.study.name}: {note}" for dose in doses for note in dose.study.notes]
    sources = []
    for source in (s for s in ARMS if s != REFERENCE):
        lacking = [dose.percent for dose in doses if source not in dose.arms]
        if not lacking:
            sources.append(source)
        elif len(lacking) < len(doses):
            notes.append(f"The arm *{ARMS[source]}* is left out: it has no run at {phrases.listed(lacking)}.")
    if not sources:
        raise LedgerError("no arm that shares was trained at every dose", where=f"doses {_percents(doses)}")
    seeds, left_out = _seeds(doses, sources)
    return Doses(tuple(doses), tuple(sources), seeds, (*notes, *left_out))


def _percents(doses: Sequence[Dose]) -> str:
    return phrases.listed([dose.percent for dose in doses])


def _seeds(doses: Sequence[Dose], sources: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """Seeds with which every arm was trained at every dose, and a note on the others."""
    have = {(d.percent, s): d.seeds(s) for d in doses for s in (*sources, REFERENCE)}
    common, all_seeds = set.intersection(*have.values()), sorted(set.union(*have.values()))
    notes = []
    for seed in (s for s in all_seeds if s not in common):
        gone = [f"{ARMS[s]} at {at}" for (at, s), seeds in have.items() if seed not in seeds]
        notes.append(f"Seed {seed} is left out: it lacks {phrases.count(len(gone), 'run')} ({gone[0]}, ...).")
    if not common:
        raise LedgerError("no seed was trained with every arm at every dose", hint=" ".join(notes))
    return tuple(sorted(common)), notes


# -- numbers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """A difference between two arms at one dose, or how it changes with the dose (`shared` is None)."""

    arm: str
    other: str
    measure: str
    shared: float | None
    interval: Interval
    by_seed: tuple[float, ...]
    adjusted: float | None = None
    verdict: Verdict | None = None

    @property
    def claimed(self) -> bool:
        """Whether something is claimed of it."""
        return self.verdict in CLAIMS


@dataclass(frozen=True, eq=False)
class Effects:
    """All differences by pair of arms, measure and dose (None for the slope), and how many were tested."""

    of: dict[tuple[str, str, str, float | None], Effect] = field(default_factory=dict)
    tests: int = 0

    def row(self, pair: tuple[str, str], measure: str) -> list[Effect]:
        """The differences of a pair at every dose in rising order, then the slope."""
        return [e for e in self.of.values() if (e.arm, e.other) == pair and e.measure == measure]


def weights_of_slope(doses: Sequence[float]) -> np.ndarray:
    """Weights whose sum with values at these doses is the slope of the least-squares line, per unit of dose."""
    off = np.asarray(doses) - np.mean(doses)
    return off / (off @ off)


def effects_of(doses: Doses) -> Effects:
    """All differences and slopes; those in recall of the rare class are tested, with Bonferroni's correction."""
    shared = [dose.shared for dose in doses.doses]
    tests = len(doses.tested) * (len(shared) + 1)
    out: dict[tuple[str, str, str, float | None], Effect] = {}
    for arm, other in doses.contrasts:
        pairs = [(doses.samples[arm, at], doses.samples[other, at]) for at in shared]
        differences = [ours - theirs for ours, theirs in pairs]
        slope = combination(differences, weights_of_slope(shared))
        for measure in MEASURES:
            found = [_difference(ours, theirs, measure) for ours, theirs in pairs]
            all_found = [*zip(shared, found, differences, strict=True), (None, t_intervals(slope)[measure], slope)]
            for at, interval, sample in all_found:
                by_seed = tuple(float(v) for v in sample.values[measure])
                effect = Effect(arm, other, measure, at, interval, by_seed)
                if measure == "recall" and (arm, other) in doses.tested:
                    effect = _judged(effect, tests, doses)
                out[arm, other, measure, at] = effect
    return Effects(out, tests)


def _difference(ours: Jackknife, theirs: Jackknife, measure: str) -> Interval:
    """The paired difference, with the intervals that reports print; t-intervals for areas, which are no shares."""
    if measure == AUROC:
        return t_intervals(ours - theirs)[AUROC]
    return score_differences(ours.only(measure), theirs.only(measure))[measure]


def _judged(effect: Effect, tests: int, doses: Doses) -> Effect:
    interval = effect.interval
    several = len(doses.seeds) > 1
    adjusted = min(1.0, tests * interval.p) if several and np.isfinite(interval.p) else None
    hardly = {at for source, at in doses.doubtful if source in (effect.arm, effect.other)}
    if not interval.known:
        verdict = Verdict.UNKNOWN
    elif interval.covers(0.0):
        verdict = Verdict.NOISE
    elif adjusted is None:
        verdict = Verdict.ONE_SEED
    elif effect.shared in hardly or (effect.shared is None and hardly):
        verdict = Verdict.CHANCE
    elif adjusted >= ALPHA:
        verdict = Verdict.NOT_ADJUSTED
    else:
        verdict = Verdict.GAIN if interval.value > 0 else Verdict.LOSS
    return Effect(effect.arm, effect.other, effect.measure, effect.shared, interval, effect.by_seed, adjusted, verdict)


def score(sample: Jackknife, measure: str) -> Interval:
    """A measure of one arm, mean over seeds."""
    return (
        t_intervals(sample.only(AUROC))[AUROC] if measure == AUROC else score_intervals(sample.only(measure))[measure]
    )
