"""Section "Overall scores": accuracy, mean-class accuracy and macro-F1, against chance and by fold."""

from __future__ import annotations

from functools import partial

import numpy as np

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.numbers import SCORES, MethodNumbers, Numbers
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats import confusion
from fer_bench.stats.chance import COLLAPSED, ChanceTest


def build(context: Context) -> list:
    """Accuracy, mean-class accuracy, macro-F1; pooled over folds and by fold, where there are several."""
    folds = fold_table(context.numbers)
    return [
        TableBlock(score_table(context.numbers), "scores", "Overall scores"),
        TableBlock(chance_table(context.numbers), "chance", "Against classifiers that ignore the image"),
        TableBlock(folds, "folds", "Scores pooled over folds and by fold") if folds else None,
    ]


def _score(name: str, method: MethodNumbers) -> str:
    interval = phrases.share_with_interval(method.scores[name]).partition(" ")[2]
    return f"{phrases.mean_and_spread(method.by_seed[name])} {interval}".strip()


def score_table(numbers: Numbers) -> Table:
    """Accuracy, mean-class accuracy and macro-F1 of every method."""
    caption = f"In %: {phrases.spread_over_seeds(numbers)}, and {phrases.interval_of(numbers)}."
    study = numbers.study
    columns = [
        Column("Method", phrases.method_name, right=False),
        Column(phrases.trainings_heading(study), lambda m: phrases.trainings(study, m.trainings)),
        *(Column(heading[0].upper() + heading[1:], each(_score, name)) for name, heading in SCORES.items()),
    ]
    return tabulate(columns, numbers.methods, caption)


def _lead(against: ChanceTest | None) -> str:
    return phrases.UNKNOWN if against is None else phrases.points(against.value - against.baseline)


def _leaning(study: StudyData, method: MethodNumbers) -> str:
    """The most frequent prediction of each seed, with its share of the images (classes weighted equally)."""
    shares = 100 * method.chance.dominant_share
    answers = phrases.listed([study.classes[i] for i in dict.fromkeys(method.chance.dominant_class.tolist())])
    ends = dict.fromkeys(f"{share:.0f}" for share in (shares.min(), shares.max()))
    return f"{answers}, {' to '.join(ends)} %"


def chance_table(numbers: Numbers) -> Table:
    """Every method against classifiers that ignore the image."""
    one = numbers.study.one
    columns = [
        Column("Method", phrases.method_name, right=False),
        Column("Mean-class accuracy above chance", lambda m: _lead(m.chance.mean_recall)),
        Column("p", lambda m: phrases.p_value(m.chance.mean_recall and m.chance.mean_recall.p)),
        Column("Accuracy above best constant", lambda m: _lead(m.chance.accuracy)),
        Column("p", lambda m: phrases.p_value(m.chance.accuracy and m.chance.accuracy.p)),
        Column("Most frequent prediction", each(_leaning, numbers.study), right=False),
        Column(f"Collapsed {one}s", lambda m: f"{int(m.chance.collapsed.sum())} of {len(m.chance.collapsed)}"),
    ]
    if any(m.chance.testable for m in numbers.methods):
        caption = (
            "In points, with one-sided p after Holm's correction for the two tests. For comparison, "
            f"{answer.chance_levels(numbers)}. Mean-class accuracy is tested by permuting the labels (Ojala and "
            "Garriga 2010), accuracy by a score test with the crossed variance. Most frequent prediction: the share of "
            f"images that receive it (classes weighted equally); with {100 * COLLAPSED:g} % or more, a {one} has "
            "collapsed."
        )
    else:
        caption = "Fewer than two classes have test images, so there is no comparison with chance."
    return tabulate(columns, numbers.methods, caption)


def _by_fold(method: MethodRuns, study: StudyData, name: str) -> np.ndarray:
    """A score in every fold, mean over seeds."""
    score, classes = confusion.SCORES[name], len(study.classes)
    by_fold: dict[int, list[float]] = {}
    for run in method.runs:
        matrix = confusion.confusion_matrix(run.labels, run.predictions, classes)
        by_fold.setdefault(run.fold, []).append(float(score(matrix)))
    return np.asarray([np.mean(by_fold[fold]) for fold in sorted(by_fold)])


def _spread(study: StudyData, name: str, method: MethodRuns) -> str:
    values = 100 * _by_fold(method, study, name)
    low, high = (phrases.percent(v / 100) for v in (values.min(), values.max()))
    return f"{phrases.mean_and_spread(values / 100)} ({low} to {high})"


def fold_table(numbers: Numbers) -> Table | None:
    """Scores pooled over folds beside their spread from fold to fold; None for a single fold."""
    study = numbers.study
    if len(study.folds) < 2:
        return None
    columns = [Column("Method", lambda m: phrases.method_name(numbers.method(m.label)), right=False)]
    columns.append(Column("Folds", lambda m: str(len({r.fold for r in m.runs}))))
    varied = phrases.varied(study)
    for name, heading in SCORES.items():
        pooled = each(lambda n, m: phrases.percent(numbers.method(m.label).scores[n].value), name)
        columns.append(Column(f"Pooled {heading}", pooled))
        columns.append(Column(f"{heading[0].upper()}{heading[1:]} by fold", each(partial(_spread, study), name)))
    caption = (
        f"In %. Pooled: for each {study.one}, the predictions of all folds are scored "
        f"together; then the mean over {varied}. The "
        "intervals and gains elsewhere in this report are of pooled scores. By fold: each fold is scored on its own "
        f"(mean over {varied}); mean ± standard deviation over folds (minimum to maximum). Folds share training "
        "images, so this spread is not a standard error."
    )
    if study.repeated:
        caption += (
            f" {study.repeated:,} of the pooled test images repeat images of other folds; intervals treat all "
            "predictions of an image as one sampling unit."
        )
    return tabulate(columns, study.methods, caption)


SECTION = Section("scores", "Overall scores", build)
