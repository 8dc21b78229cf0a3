"""A metric: Cohen's kappa, the agreement with the truth beyond what the class frequencies give by themselves."""

from __future__ import annotations

import numpy as np

from fer_bench.stats.metrics import Column, of_matrices


def kappa(matrices: np.ndarray) -> np.ndarray:
    """Cohen's kappa [S] of confusion matrices [S, C, C] with true classes in rows (Cohen 1960); NaN without chance."""
    shares = matrices / matrices.sum((1, 2), keepdims=True)
    agreed = np.trace(shares, axis1=1, axis2=2)
    expected = (shares.sum(1) * shares.sum(2)).sum(1)
    return np.divide(agreed - expected, 1 - expected, out=np.full(len(shares), np.nan), where=expected < 1)


column = Column(name="kappa", title="Cohen's kappa", compute=of_matrices(kappa), unit="number")
