"""Metrics of a run's test predictions: each is a small entry in one registry, and reports show them all.

A metric has a name, states what it needs (logits, probabilities or predicted classes) and which direction is better,
and computes one number per seed, or one per seed and class. Adding one takes an entry and no branch:

    def top3(logits, labels, context):
        return top_k_accuracy(logits, labels, k=3)

    register(Metric(name="top3", title="Top-3 accuracy", compute=top3, needs="logits"))

Installed packages offer metrics through the entry point group ``fer_bench.metrics``: each entry point names a
:class:`Metric` or a sequence of them (:func:`discover`). Metrics are computed from stored logits, so a new one needs no
new training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import entry_points
from typing import Literal

import numpy as np

from fer_bench.errors import PluginError, unknown
from fer_bench.stats import class_groups, confusion, probabilities
from fer_bench.stats.class_groups import Groups

ENTRY_POINTS = "fer_bench.metrics"
RATIOS = (50, 10, 2)  # of shifted priors; Zhang et al. 2022 go from 50 to 1/50


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricContext:
    """What a metric may use besides predictions and labels.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    train_counts : ndarray [C] or None
        Training images of each class, where known.
    tested : ndarray [C] of bool or None
        Classes that have test images; None for all.
    """

    classes: tuple[str, ...]
    train_counts: np.ndarray | None = None
    tested: np.ndarray | None = None

    @cached_property
    def head_middle_tail(self) -> Groups:
        """Head, middle and tail, or the reason why there are none."""
        return self._grouped(partial(class_groups.head_middle_tail, tested=self.tested))

    @cached_property
    def many_medium_few(self) -> Groups:
        """Many, medium and few, or the reason why there are none."""
        return self._grouped(class_groups.many_medium_few)

    def _grouped(self, by: Callable[[np.ndarray], Groups]) -> Groups:
        return Groups(reason=NO_COUNTS) if self.train_counts is None else by(np.asarray(self.train_counts))


Compute = Callable[[np.ndarray, np.ndarray, MetricContext], np.ndarray]
NO_COUNTS = "the numbers of training images are not known"


def _always(context: MetricContext) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name, title : str
        Identifier, and heading in reports.
    compute : callable
        (answers, labels [n], context) to an array [S], or [S, C] where ``kind`` is "class". Answers are logits or
        probabilities [S, n, C], NaN for images that a seed has not seen, or predicted classes [S, n], -1 for such
        images.
    needs : "logits", "probabilities" or "predictions"
        Which answers it takes.
    kind : "score" or "class"
        One number per seed, or one per seed and class.
    better : "higher" or "lower"
        Which direction is better.
    unit : "share" or "number"
        A share is printed in percent, a number as it is.
    missing : callable
        (context) to the reason why it can't be computed; empty where it can.
    """

    name: str
    title: str
    compute: Compute
    needs: Literal["logits", "probabilities", "predictions"] = "predictions"
    kind: Literal["score", "class"] = "score"
    better: Literal["higher", "lower"] = "higher"
    unit: Literal["share", "number"] = "share"
    missing: Callable[[MetricContext], str] = _always


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """A metric's values [S] or [S, C]; None with the reason where there are none."""

    metric: Metric
    values: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Answers:
    """The outputs of S seeds for n test images.

    Attributes
    ----------
    predictions : ndarray [S, n]
        Predicted classes, -1 where a seed has not seen an image.
    logits : ndarray [S, n, C] or None
        NaN where a seed has not seen an image; None where they were not kept.
    """

    predictions: np.ndarray
    logits: np.ndarray | None = field(default=None)

    @cached_property
    def probabilities(self) -> np.ndarray | None:
        """Softmax of the logits, float64 [S, n, C]."""
        return None if self.logits is None else probabilities.softmax(self.logits)

    @classmethod
    def of_logits(cls, logits: np.ndarray) -> Answers:
        """Answers whose predicted classes have the largest logits, the first of equal ones."""
        unseen = np.isnan(logits).any(-1)
        return cls(np.where(unseen, -1, np.where(np.isnan(logits), -np.inf, logits).argmax(-1)), logits)


class Registry:
    """Metrics by name, in the order of their registration."""

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self._by_name: dict[str, Metric] = {}
        for metric in metrics:
            self.add(metric)

    def add(self, metric: Metric) -> Metric:
        """Register a metric; registering the same one again changes nothing.

        Raises
        ------
        PluginError
            It is not a :class:`Metric`, a field has a value that is not allowed, or its name is taken.
        """
        if not isinstance(metric, Metric):
            raise PluginError(f"{metric!r} is not a metric", hint="a Metric(name=..., title=..., compute=...)")
        for name, allowed in ALLOWED.items():
            if getattr(metric, name) not in allowed:
                what = f"metric '{metric.name}' has {name} {getattr(metric, name)!r}"
                raise PluginError(what, hint=f"one of {', '.join(allowed)}")
        if self._by_name.setdefault(metric.name, metric) is not metric:
            raise PluginError(f"two metrics are called '{metric.name}'", hint="rename one of them")
        return metric

    def __getitem__(self, name: str) -> Metric:
        if name not in self._by_name:
            raise unknown("metric", name, self._by_name)
        return self._by_name[name]

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)


ALLOWED = {
    "needs": ("logits", "probabilities", "predictions"),
    "kind": ("score", "class"),
    "better": ("higher", "lower"),
    "unit": ("share", "number"),
}


def evaluate(metric: Metric, answers: Answers, labels: np.ndarray, context: MetricContext) -> Values:
    """Compute a metric, or give the reason why it can't be computed.

    Raises
    ------
    PluginError
        The metric fails, or returns another shape than its kind requires.
    """
    reason = metric.missing(context)
    given = getattr(answers, metric.needs)
    if given is None:
        reason = "the logits were not kept"
    if reason:
        return Values(metric=metric, reason=reason)
    try:
        values = np.asarray(metric.compute(given, labels, context), dtype=float)
    except Exception as error:
        raise PluginError(f"metric '{metric.name}' failed: {type(error).__name__}: {error}") from error
    shape = (len(given), len(context.classes))[: 1 + (metric.kind == "class")]
    if values.shape != shape:
        raise PluginError(f"metric '{metric.name}' returned the shape {values.shape}, not {shape}")
    return Values(metric=metric, values=values)


# Partial functions of module-level ones, unlike closures, can be sent to the process that scores large reports.


def _of_margins(score: confusion.Score) -> Compute:
    return partial(_score_margins, score)


def _score_margins(
    score: confusion.Score, predictions: np.ndarray, labels: np.ndarray, context: MetricContext
) -> np.ndarray:
    return score(confusion.Margins.count(labels, predictions, len(context.classes)))


def _without_context(metric: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Compute:
    return partial(_ignore_context, metric)


def _ignore_context(
    metric: Callable[[np.ndarray, np.ndarray], np.ndarray],
    answers: np.ndarray,
    labels: np.ndarray,
    context: MetricContext,
) -> np.ndarray:
    return metric(answers, labels)


def _group_recall(
    grouping: str, name: str, predictions: np.ndarray, labels: np.ndarray, context: MetricContext
) -> np.ndarray:
    members = getattr(context, grouping).members[name]
    return _score_margins(confusion.GroupRecall(members), predictions, labels, context)


def _without_group(grouping: str, name: str, context: MetricContext) -> str:
    groups: Groups = getattr(context, grouping)
    return groups.reason or ("" if name in groups.members else f"no class is '{name}'")


def _score_under_prior(
    score: confusion.Score,
    prior: Callable[[MetricContext], np.ndarray],
    predictions: np.ndarray,
    labels: np.ndarray,
    context: MetricContext,
) -> np.ndarray:
    classes = len(context.classes)
    one_by_one = (confusion.confusion_matrix(labels, seed[None], classes) for seed in predictions)
    return np.concatenate([score(confusion.under_prior(matrix, prior(context))) for matrix in one_by_one])


def _without_counts(context: MetricContext) -> str:
    return NO_COUNTS if context.train_counts is None else ""


def _train_prior(context: MetricContext) -> np.ndarray:
    counts = np.asarray(context.train_counts, dtype=float)
    return counts / counts.sum()


def _uniform_prior(context: MetricContext) -> np.ndarray:
    return np.full(len(context.classes), 1 / len(context.classes))


def _exponential_prior(ratio: float, context: MetricContext) -> np.ndarray:
    return class_groups.shifted_prior(np.asarray(context.train_counts), ratio)


def _predictions() -> Iterable[Metric]:
    scores = {
        "accuracy": ("Accuracy", confusion.accuracy),
        "mean_recall": ("Mean-class accuracy", confusion.mean_recall),
        "macro_f1": ("Macro-F1", confusion.macro_f1),
        "geometric_mean": ("Geometric mean of recalls", confusion.geometric_mean),
        "worst_recall": ("Recall of the worst class", confusion.worst_recall),
    }
    for name, (title, score) in scores.items():
        yield Metric(name=name, title=title, compute=_of_margins(score))
    by_class = {
        "recall": ("Recall", confusion.recalls),
        "precision": ("Precision", confusion.precisions),
        "f1": ("F1", confusion.f1_scores),
    }
    for name, (title, score) in by_class.items():
        yield Metric(name=name, title=title, compute=_of_margins(score), kind="class")


def _group_recalls() -> Iterable[Metric]:
    groupings = {"head_middle_tail": ("head", "middle", "tail"), "many_medium_few": ("many", "medium", "few")}
    for grouping, names in groupings.items():
        for name in names:
            yield Metric(
                name=f"{name}_recall",
                title=f"Mean recall of the {name} classes",
                compute=partial(_group_recall, grouping, name),
                missing=partial(_without_group, grouping, name),
            )


def _probabilities() -> Iterable[Metric]:
    top2 = _without_context(probabilities.top_k_accuracy)
    yield Metric(name="top2", title="Top-2 accuracy", compute=top2, needs="logits")
    errors: dict[str, tuple[str, Callable]] = {
        "ece": ("ECE", probabilities.calibration_error),
        "classwise_ece": ("Classwise ECE", probabilities.classwise_calibration_error),
    }
    for name, (title, metric) in errors.items():
        yield Metric(name=name, title=title, compute=_without_context(metric), needs="probabilities", better="lower")
    yield Metric(
        name="class_ece",
        title="Calibration error of the class",
        compute=_without_context(probabilities.class_calibration_errors),
        needs="probabilities",
        kind="class",
        better="lower",
    )
    yield Metric(
        name="brier",
        title="Brier score",
        compute=_without_context(probabilities.brier),
        needs="probabilities",
        better="lower",
        unit="number",
    )
    auroc, macro = _without_context(probabilities.auroc), _without_context(probabilities.macro_auroc)
    yield Metric(name="auroc", title="AUROC", compute=auroc, needs="logits", kind="class")
    yield Metric(name="macro_auroc", title="Macro AUROC", compute=macro, needs="logits")


def _shifted() -> Iterable[Metric]:
    priors: dict[str, tuple[str, Callable, Callable]] = {
        "uniform": ("uniform", _uniform_prior, _always),
        "train": ("training", _train_prior, _without_counts),
    }
    for ratio in RATIOS:
        priors[f"forward{ratio}"] = (f"forward {ratio}:1", partial(_exponential_prior, ratio), _without_counts)
    for ratio in reversed(RATIOS):
        priors[f"backward{ratio}"] = (f"backward 1:{ratio}", partial(_exponential_prior, 1 / ratio), _without_counts)
    scores = {"accuracy": ("Accuracy", confusion.accuracy), "macro_f1": ("Macro-F1", confusion.macro_f1)}
    for name, (title, prior, missing) in priors.items():
        for score, (heading, metric) in scores.items():
            yield Metric(
                name=f"{score}_{name}",
                title=f"{heading} under {title} test shares",
                compute=partial(_score_under_prior, metric, prior),
                missing=missing,
            )


METRICS = Registry([*_predictions(), *_group_recalls(), *_probabilities(), *_shifted()])
"""All metrics that are known in this process."""

BUILT_IN = frozenset(metric.name for metric in METRICS)
"""Names of the metrics that every process knows."""


def register(metric: Metric) -> Metric:
    """Add a metric to :data:`METRICS`; raises as :meth:`Registry.add`."""
    return METRICS.add(metric)


def discover(metrics: Registry = METRICS) -> list[PluginError]:
    """Register what installed packages offer; what can't be loaded is returned and breaks nothing else."""
    broken = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            offered = point.load()
            for metric in [offered] if isinstance(offered, Metric) else offered:
                if metric.name not in metrics or metrics[metric.name] is not metric:
                    metrics.add(metric)
        except Exception as error:
            what = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            broken.append(PluginError(f"metrics of '{point.name}' can't be used: {what}", where=point.value))
    return broken
