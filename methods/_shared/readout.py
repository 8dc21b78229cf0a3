"""Choosing how a trained network is read out, on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fer_bench import Param

CRITERIA = ("mean_recall", "macro_f1", "accuracy")
CRITERION = Param(
    "mean_recall",
    "what τ is chosen by on validation: mean-class accuracy, macro-F1 or accuracy. No effect with a given τ",
    choices=CRITERIA,
)


def first_best(
    values: Sequence[float], predict: Callable[[float], np.ndarray], labels: np.ndarray, criterion: str, classes: int
) -> float:
    """The first of equally good values.

    Parameters
    ----------
    values : sequence of float
    predict : callable
        A value -> predicted classes [n] of the validation images.
    labels : int array [n]
    criterion : str
        One of :data:`CRITERIA`.
    classes : int
        Number of classes.
    """
    scores = [round(score(criterion, labels, predict(value), classes), 12) for value in values]
    return values[int(np.argmax(scores))]


def score(criterion: str, labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """A score of predictions [n], as the harness computes it: classes without images have no recall, classes that
    neither occur nor are predicted have no F1."""
    correct = np.bincount(labels[labels == predicted], minlength=classes)
    images, answers = (np.bincount(of, minlength=classes) for of in (labels, predicted))
    if criterion == "accuracy":
        return float(correct.sum() / images.sum())
    if criterion == "macro_f1":
        known = images + answers > 0
        return float((2 * correct[known] / (images + answers)[known]).mean())
    return float((correct[images > 0] / images[images > 0]).mean())
