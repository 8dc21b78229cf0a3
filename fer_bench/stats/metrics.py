"""Metric columns: what can be told of a run's test answers, each a small entry in one registry.

A column names itself, says what it needs (logits or decisions), which way is better, and computes one number a seed, or
one a seed and class. A new one is an entry and no branch:

    register(Column(name="top3", title="Top-3 accuracy", needs="logits",
                    compute=lambda logits, labels, context: top_k_accuracy(logits, labels, 3)))

Installed packages offer columns through the entry point group ``fer_bench.metrics``: each names a :class:`Column` or a
sequence of them (:func:`discover`). Columns are computed from stored logits, so a new one needs no new training.
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
    """What a metric may know besides answers and truth.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    train_counts : ndarray [C] or None
        Training images of each class, where known.
    tested : ndarray [C] of bool or None
        Classes that have test images; all where it is not told.
    """

    classes: tuple[str, ...]
    train_counts: np.ndarray | None = None
    tested: np.ndarray | None = None

    @cached_property
    def head_middle_tail(self) -> Groups:
        """Head, middle and tail, or why there are none."""
        return self._grouped(partial(class_groups.head_middle_tail, tested=self.tested))

    @cached_property
    def many_medium_few(self) -> Groups:
        """Many, medium and few, or why there are none."""
        return self._grouped(class_groups.many_medium_few)

    def _grouped(self, by: Callable[[np.ndarray], Groups]) -> Groups:
        return Groups(reason=NO_COUNTS) if self.train_counts is None else by(np.asarray(self.train_counts))


Compute = Callable[[np.ndarray, np.ndarray, MetricContext], np.ndarray]
NO_COUNTS = "the numbers of training images are not known"


def _always(context: MetricContext) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric.

    Attributes
    ----------
    name, title : str
        Identifier, and heading of the column.
    compute : callable
        (answers, labels [n], context) to an array [S], or [S, C] where ``kind`` is "class". Answers are logits or
        probabilities [S, n, C] with NaN, or decisions [S, n] with -1, for images that a seed has not seen.
    needs : "logits", "probabilities" or "predictions"
        Which answers it takes.
    kind : "score" or "class"
        One number a seed, or one a seed and class.
    better : "higher" or "lower"
    unit : "share" or "number"
        A share is shown in percent, a number as it is.
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
    """A column's values [S] or [S, C]; None with the reason where there are none."""

    column: Column
    values: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Answers:
    """What S seeds said of n test images.

    Attributes
    ----------
    predictions : ndarray [S, n]
        Decisions, -1 where a seed has not seen an image.
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
        """Answers whose decisions are the largest logits, the first of equal ones."""
        unseen = np.isnan(logits).any(-1)
        return cls(np.where(unseen, -1, np.where(np.isnan(logits), -np.inf, logits).argmax(-1)), logits)


class Columns:
    """A registry of columns by name, in the order they came."""

    def __init__(self, columns: Iterable[Column] = ()):
        self._by_name: dict[str, Column] = {}
        for column in columns:
            self.add(column)

    def add(self, column: Column) -> Column:
        """Enter a column.

        Raises
        ------
        PluginError
            It is no :class:`Column`, a field has a value that is not allowed, or its name is taken.
        """
        if not isinstance(column, Column):
            raise PluginError(f"{column!r} is no metric column", hint="a Column(name=..., title=..., compute=...)")
        for name, allowed in ALLOWED.items():
            if getattr(column, name) not in allowed:
                what = f"column '{column.name}' has {name} {getattr(column, name)!r}"
                raise PluginError(what, hint=f"one of {', '.join(allowed)}")
        if self._by_name.setdefault(column.name, column) is not column:
            raise PluginError(f"two metric columns are called '{column.name}'", hint="rename one of them")
        return column

    def __getitem__(self, name: str) -> Column:
        if name not in self._by_name:
            raise unknown("metric column", name, self._by_name)
        return self._by_name[name]

    def __iter__(self) -> Iterator[Column]:
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


def evaluate(column: Column, answers: Answers, labels: np.ndarray, context: MetricContext) -> Values:
    """Compute a column, or say why it can't be.

    Raises
    ------
    PluginError
        The column fails, or gives another shape than its kind promises.
    """
    reason = column.missing(context)
    given = getattr(answers, column.needs)
    if given is None:
        reason = "the logits were not kept"
    if reason:
        return Values(column=column, reason=reason)
    try:
        values = np.asarray(column.compute(given, labels, context), dtype=float)
    except Exception as error:
        raise PluginError(f"metric column '{column.name}' failed: {type(error).__name__}: {error}") from error
    shape = (len(given), len(context.classes))[: 1 + (column.kind == "class")]
    if values.shape != shape:
        raise PluginError(f"metric column '{column.name}' gave {values.shape}, not {shape}")
    return Values(column=column, values=values)


def of_matrices(metric: Callable[[np.ndarray], np.ndarray]) -> Compute:
    """A column's computation from a function of confusion matrices [S, C, C]."""
    return partial(_of_matrices, metric)


def _of_matrices(
    metric: Callable[[np.ndarray], np.ndarray], predictions: np.ndarray, labels: np.ndarray, context: MetricContext
) -> np.ndarray:
    return metric(confusion.confusions(labels, predictions, len(context.classes)))


def of_margins(metric: confusion.Stacked) -> Compute:
    """A column's computation from a function of :class:`~.confusion.Margins` [S, C], which take less memory."""
    return partial(_of_margins, metric)


def _of_margins(
    metric: confusion.Stacked, predictions: np.ndarray, labels: np.ndarray, context: MetricContext
) -> np.ndarray:
    return metric(confusion.Margins.counted(labels, predictions, len(context.classes)))


def without_context(metric: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Compute:
    """A column's computation from a function of answers and labels [n] alone."""
    return partial(_without_context, metric)


def _without_context(
    metric: Callable[[np.ndarray, np.ndarray], np.ndarray],
    answers: np.ndarray,
    labels: np.ndarray,
    context: MetricContext,
) -> np.ndarray:
    return metric(answers, labels)


def _of_group(
    grouping: str, name: str, predictions: np.ndarray, labels: np.ndarray, context: MetricContext
) -> np.ndarray:
    members = getattr(context, grouping).members[name]
    return _of_margins(confusion.group_recall(members), predictions, labels, context)


def _without_group(grouping: str, name: str, context: MetricContext) -> str:
    found: Groups = getattr(context, grouping)
    return found.reason or ("" if name in found.members else f"no class is '{name}'")


def _under(
    metric: Callable[[np.ndarray], np.ndarray],
    prior: Callable[[MetricContext], np.ndarray],
    predictions: np.ndarray,
    labels: np.ndarray,
    context: MetricContext,
) -> np.ndarray:
    classes = len(context.classes)
    one_by_one = (confusion.confusions(labels, seed[None], classes) for seed in predictions)
    return np.concatenate([metric(confusion.under_prior(matrix, prior(context))) for matrix in one_by_one])


def _without_counts(context: MetricContext) -> str:
    return NO_COUNTS if context.train_counts is None else ""


def _train_prior(context: MetricContext) -> np.ndarray:
    counts = np.asarray(context.train_counts, dtype=float)
    return counts / counts.sum()


def _uniform_prior(context: MetricContext) -> np.ndarray:
    return np.full(len(context.classes), 1 / len(context.classes))


def _exponential_prior(ratio: float, context: MetricContext) -> np.ndarray:
    return class_groups.shifted_prior(np.asarray(context.train_counts), ratio)


def _decisions() -> Iterable[Column]:
    scores = {
        "accuracy": ("Accuracy", confusion.accuracy),
        "mean_recall": ("Mean-class accuracy", confusion.mean_recall),
        "macro_f1": ("Macro-F1", confusion.macro_f1),
        "geometric_mean": ("Geometric mean of recalls", confusion.geometric_mean),
        "worst_recall": ("Recall of the worst class", confusion.worst_recall),
    }
    for name, (title, metric) in scores.items():
        yield Column(name=name, title=title, compute=of_margins(metric))
    by_class = {
        "recall": ("Recall", confusion.recalls),
        "precision": ("Precision", confusion.precisions),
        "f1": ("F1", confusion.f1_scores),
    }
    for name, (title, metric) in by_class.items():
        yield Column(name=name, title=title, compute=of_margins(metric), kind="class")


def _group_columns() -> Iterable[Column]:
    groupings = {"head_middle_tail": ("head", "middle", "tail"), "many_medium_few": ("many", "medium", "few")}
    for grouping, names in groupings.items():
        for name in names:
            yield Column(
                name=f"{name}_recall",
                title=f"Mean recall of the {name} classes",
                compute=partial(_of_group, grouping, name),
                missing=partial(_without_group, grouping, name),
            )


def _probabilities() -> Iterable[Column]:
    top2 = without_context(probabilities.top_k_accuracy)
    yield Column(name="top2", title="Top-2 accuracy", compute=top2, needs="logits")
    errors: dict[str, tuple[str, Callable]] = {
        "ece": ("ECE", probabilities.calibration_error),
        "classwise_ece": ("Classwise ECE", probabilities.classwise_calibration_error),
    }
    for name, (title, metric) in errors.items():
        yield Column(name=name, title=title, compute=without_context(metric), needs="probabilities", better="lower")
    yield Column(
        name="class_ece",
        title="Calibration error of the class",
        compute=without_context(probabilities.class_calibration_errors),
        needs="probabilities",
        kind="class",
        better="lower",
    )
    yield Column(
        name="brier",
        title="Brier score",
        compute=without_context(probabilities.brier),
        needs="probabilities",
        better="lower",
        unit="number",
    )
    auroc, macro = without_context(probabilities.auroc), without_context(probabilities.macro_auroc)
    yield Column(name="auroc", title="AUROC", compute=auroc, needs="logits", kind="class")
    yield Column(name="macro_auroc", title="Macro AUROC", compute=macro, needs="logits")


def _shifted() -> Iterable[Column]:
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
            yield Column(
                name=f"{score}_{name}",
                title=f"{heading} under {title} test shares",
                compute=partial(_under, metric, prior),
                missing=missing,
            )


COLUMNS = Columns([*_decisions(), *_group_columns(), *_probabilities(), *_shifted()])
"""All columns that are known in this process."""

BUILT_IN = frozenset(column.name for column in COLUMNS)
"""Names of the columns that every process knows."""


def register(column: Column) -> Column:
    """Enter a column into :data:`COLUMNS`; raises as :meth:`Columns.add`."""
    return COLUMNS.add(column)


def discover(columns: Columns = COLUMNS) -> list[PluginError]:
    """Enter what installed packages offer; what can't be loaded is returned and breaks nothing else."""
    broken = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            offered = point.load()
            for column in [offered] if isinstance(offered, Column) else offered:
                if column.name not in columns or columns[column.name] is not column:
                    columns.add(column)
        except Exception as error:
            what = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            broken.append(PluginError(f"columns of '{point.name}' can't be used: {what}", where=point.value))
    return broken
