"""A metric: Cohen's kappa, the agreement with the truth beyond what the class frequencies give by themselves."""

from __future__ import annotations

import numpy as np

from fer_bench import Metric, MetricContext
from fer_bench.stats.confusion import confusion_matrix


def kappa(matrices: np.ndarray) -> np.ndarray:
    """Cohen's kappa [S] of confusion matrices [S, C, C] with true classes in rows (Cohen 1960); NaN without chance."""
    shares = matrices / matrices.sum((1, 2), keepdims=True)
    agreed = np.trace(shares, axis1=1, axis2=2)
    expected = (shares.sum(1) * shares.sum(2)).sum(1)
    return np.divide(agreed - expected, 1 - expected, out=np.full(len(shares), np.nan), where=expected < 1)


def compute(predictions: np.ndarray, labels: np.ndarray, context: MetricContext) -> np.ndarray:
    """Cohen's kappa [S] of the predicted classes [S, n] of S seeds."""
    return kappa(confusion_matrix(labels, predictions, len(context.classes)))


metric = Metric(name="kappa", title="Cohen's kappa", compute=compute, unit="number")
