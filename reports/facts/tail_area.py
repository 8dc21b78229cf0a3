"""The area under the ROC curve of the tail, method by method, and its paired differences.

It says how well a network ranks images by class, and hardly depends on where the decision lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.runs import Training, subsets_of
from fer_bench.reports.facts.scoring import scored_runs
from fer_bench.stats.auroc_errors import AUROC, jackknife_of_auroc
from fer_bench.stats.crossed_errors import Jackknife
from fer_bench.stats.intervals import Interval, t_intervals

Areas = dict[str, tuple[tuple[Training, ...], Jackknife]]


def areas_of(study: StudyData, tail: Sequence[int], labels: Iterable[str]) -> Areas:
    """The mean area of the classes `tail`, each against the rest, with the trainings of the method.

    Methods whose logits can't be read are left out; without a tail there is nothing.
    """
    out: Areas = {}
    for label in dict.fromkeys(labels):
        method = next((m for m in study.methods if m.label == label), None)
        logits = None if method is None or not tail else scored_runs(study, label).answers().logits
        if method is None or logits is None:
            continue
        out[label] = method.trainings, jackknife_of_auroc(study.truth, logits, tail, subsets_of(method.trainings))
    return out


def mean_area(areas: Areas, label: str) -> Interval:
    """The area of a method, with its t-interval."""
    return t_intervals(areas[label][1])[AUROC]


def area_difference(areas: Areas, label: str, other: str, shared: Sequence[Training]) -> Interval | None:
    """The paired difference on the trainings that both have; None where an area is missing."""
    if label not in areas or other not in areas or not shared:
        return None
    ours, theirs = (_only(*areas[side], shared) for side in (label, other))
    return t_intervals(ours - theirs)[AUROC]


def differences_from(
    study: StudyData, tail: Sequence[int], other: str | None, shared: Mapping[str, Sequence[Training]]
) -> dict[str, Interval | None]:
    """The differences of methods from `other`, by label, on the trainings that each shares with it."""
    if other is None or not shared:
        return {}
    areas = areas_of(study, tail, [other, *shared])
    return {label: area_difference(areas, label, other, both) for label, both in shared.items()}


def _only(trainings: tuple[Training, ...], sample: Jackknife, shared: Sequence[Training]) -> Jackknife:
    rows = np.array([trainings.index(t) for t in shared])
    left_out = {AUROC: {number: values[:, rows] for number, values in sample.left_out[AUROC].items()}}
    return Jackknife(
        values={AUROC: sample.values[AUROC][rows]},
        left_out=left_out,
        units=sample.units,
        effective_units={},
        units_are_images=sample.units_are_images,
        subsets=None if sample.subsets is None else sample.subsets[rows],
    )
