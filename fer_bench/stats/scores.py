"""Classification metrics from labels and predictions, in NumPy alone.

Shares (recall, accuracy, ...) lie in [0, 1]; a class without images has recall NaN and is left out of means.
"""

from __future__ import annotations

import numpy as np


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrix, int64 [C, C]: rows are true classes, columns predicted ones."""
    flat = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Per-class recall [C] from a confusion matrix; NaN where a class has no images."""
    total = matrix.sum(axis=1)
    return np.divide(np.diag(matrix), total, out=np.full(len(matrix), np.nan), where=total > 0)


def precisions(matrix: np.ndarray) -> np.ndarray:
    """Per-class precision [C]; 0 where a class is never predicted (scikit-learn's convention)."""
    total = matrix.sum(axis=0)
    return np.divide(np.diag(matrix), total, out=np.zeros(len(matrix)), where=total > 0)


def f1_scores(matrix: np.ndarray) -> np.ndarray:
    """Per-class F1 [C] = 2·TP / (true + predicted); NaN where a class neither occurs nor is predicted."""
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    return np.divide(2 * np.diag(matrix), total, out=np.full(len(matrix), np.nan), where=total > 0)


def accuracy(matrix: np.ndarray) -> float:
    """Share of images predicted right."""
    return float(np.trace(matrix) / matrix.sum())


def mean_recall(matrix: np.ndarray) -> float:
    """Mean-class accuracy: the mean of the recalls of the classes that have images."""
    return float(np.nanmean(recalls(matrix)))


def macro_f1(matrix: np.ndarray) -> float:
    """Mean of the per-class F1 scores, over classes that occur or are predicted."""
    return float(np.nanmean(f1_scores(matrix)))


SCORES = {"accuracy": accuracy, "mean_recall": mean_recall, "macro_f1": macro_f1}
