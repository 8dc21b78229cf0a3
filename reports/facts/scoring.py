"""Scores of stored answers, method by method: what the sections on further scores and on calibration show.

The metrics that come with the harness are one job per method, cheap to send to another process, which reads the logits
itself. Metrics that a package or a program has registered may be known in this process only, so they are computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fer_bench.errors import LedgerError, PluginError
from fer_bench.record.ledger import RunRecord
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.second_process import Job, Work
from fer_bench.stats import probabilities
from fer_bench.stats.confusion import mean_known
from fer_bench.stats.metrics import BUILT_IN, METRICS, Answers, MetricContext, Values, discover, evaluate

ELSEWHERE = ("accuracy", "mean_recall", "macro_f1", "recall")  # stand in sections of their own
UNDER_OTHER_PRIORS = ("accuracy_", "macro_f1_")  # asked for by `fer-bench report --test-prior`
MEANS = {"macro_auroc": "auroc", "classwise_ece": "class_ece"}  # over classes, of a slow metric that is computed anyway


@dataclass(frozen=True, eq=False)
class MethodResults:
    """Metrics of a method, by name, or why they failed; and its reliability, all seeds together."""

    metrics: dict[str, Values | PluginError]
    diagram: probabilities.Reliability | None


@dataclass(frozen=True, eq=False)
class Results:
    """What both sections show, method by method, and a sentence on each package whose metrics can't be used."""

    methods: list[MethodResults]
    broken: list[str]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return list(self.methods[0].metrics)


@dataclass(frozen=True, eq=False)
class Tested:
    """What one method is scored on, of S seeds and n test images.

    Attributes
    ----------
    predictions : ndarray [S, n]
        Decisions, -1 where a seed has not seen an image.
    parts : tuple
        Record and place [seed, images] of each run.
    labels : ndarray [n]
        True classes.
    context : MetricContext
    split : str
        Whose predictions they are, "test" or "val".
    """

    predictions: np.ndarray
    parts: tuple[tuple[RunRecord, tuple[int, slice]], ...]
    labels: np.ndarray
    context: MetricContext
    split: str = "test"

    def answers(self, seed: int | None = None) -> Answers:
        """Decisions and logits of all seeds or of one, read from disk; no logits where those of a run can't be read.

        In memory the classes are the outermost axis, as the scores of logits like it.
        """
        seeds = range(len(self.predictions)) if seed is None else [seed]
        predictions = self.predictions[list(seeds)]
        logits = np.full((len(self.context.classes), *predictions.shape), np.nan)
        try:
            for record, (of, images) in self.parts:
                if of in seeds:
                    logits[:, seeds.index(of), images] = record.array(f"{self.split}_logits").T
        except LedgerError:
            return Answers(predictions, None)
        return Answers(predictions, np.moveaxis(logits, 0, -1))


@dataclass(frozen=True, eq=False)
class Scoring:
    """The scoring of a study under way."""

    work: Work
    jobs: Sequence[Job[MethodResults]]
    methods: Sequence[Tested]
    registered: Sequence[str]
    broken: list[str]

    def results(self) -> Results:
        """Everything that is known when all methods are scored."""
        results = self.work.results(self.jobs)
        if self.registered:
            others = [evaluated(self.registered, m, m.answers()) for m in self.methods]
            results = [replace(r, metrics=r.metrics | o) for r, o in zip(results, others, strict=True)]
        return Results(results, self.broken)


def begin(study: StudyData, work: Work) -> Scoring:
    """Start to score every method of a study."""
    broken = [e.what for e in discover()]
    names = [m.name for m in METRICS if m.name not in ELSEWHERE and not m.name.startswith(UNDER_OTHER_PRIORS)]
    methods = [scored_runs(study, m.label) for m in study.methods]
    everywhere = [n for n in names if n in BUILT_IN]
    jobs = [work.add(score, everywhere, method) for method in methods]
    return Scoring(work, jobs, methods, [n for n in names if n not in BUILT_IN], broken)


def scored_runs(study: StudyData, label: str, split: str = "test") -> Tested:
    """What the method with this label is scored on."""
    counts = study.counts
    context = MetricContext(classes=study.classes, train_counts=counts.get("train"), tested=counts["test"] > 0)
    parts = tuple((RunRecord(run.record.path), place) for run, place in study.places(label))  # without what it has read
    return Tested(study.predictions(label)[1], parts, study.labels, context, split)


def score(names: Sequence[str], tested: Tested) -> MethodResults:
    """Compute the metrics `names` of a method, and its reliability; the logits of one seed are in memory at a time."""
    by_seed: list[dict[str, Values | PluginError]] = []
    diagrams: list[probabilities.Reliability] = []
    for seed in range(len(tested.predictions)):
        answers = tested.answers(seed)
        by_seed.append(evaluated(names, tested, answers))
        if answers.probabilities is not None:
            diagrams.append(probabilities.top_label_reliability(answers.probabilities, tested.labels))
    metrics = {name: _together([of[name] for of in by_seed]) for name in names}
    complete = len(diagrams) == len(by_seed)
    return MethodResults(metrics, probabilities.joined(diagrams).pooled() if complete else None)


def _together(seeds: Sequence[Values | PluginError]) -> Values | PluginError:
    """A metric of all seeds; where one has none, the reason why."""
    parts: list[Values] = []
    for of in seeds:
        if isinstance(of, PluginError) or of.values is None:
            return of
        parts.append(of)
    return replace(parts[0], values=np.concatenate([of.values for of in parts if of.values is not None]))


def evaluated(names: Sequence[str], tested: Tested, answers: Answers) -> dict[str, Values | PluginError]:
    """The metrics `names` of some answers, in that order; for each that failed, the reason why."""
    out: dict[str, Values | PluginError] = {}
    for name in sorted(names, key=lambda n: n in MEANS):
        by_class = out.get(MEANS.get(name, ""))
        try:
            if isinstance(by_class, Values) and by_class.values is not None:
                out[name] = Values(metric=METRICS[name], values=mean_known(by_class.values))
            else:
                out[name] = evaluate(METRICS[name], answers, tested.labels, tested.context)
        except PluginError as error:
            out[name] = error
    return {name: out[name] for name in names}
