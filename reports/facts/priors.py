"""Test priors: the class shares that the test is imagined to have, and how they are typed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_bench.data.imbalance import MAX_RATIO
from fer_bench.errors import SpecError, unknown
from fer_bench.reports.facts.records import StudyData

KINDS = ("uniform", "train", "test", "forward", "backward")


@dataclass(frozen=True)
class Prior:
    """Class shares to weight recalls with: its kind, and the ratio of the largest to the smallest share."""

    kind: str
    ratio: float = 1.0

    def __str__(self) -> str:
        return f"{self.kind}:{self.ratio:g}" if self.kind in ("forward", "backward") else self.kind

    def shares(self, study: StudyData) -> np.ndarray:
        """One share a class, in the order of the study's classes; they sum to 1."""
        counts = study.counts
        if self.kind in ("train", "test"):
            weights = counts.get(self.kind, counts["test"]).astype(float)
        else:
            ranks = np.empty(len(study.classes))
            ranks[study.order[::-1]] = np.linspace(0, 1, len(study.classes))  # 0 at the most frequent in training
            ranks = ranks if self.kind == "forward" else 1 - ranks
            weights = self.ratio**-ranks
        return weights / weights.sum()


def parse_prior(text: str) -> Prior:
    """``uniform``, ``train``, ``test``, ``forward:RATIO`` or ``backward:RATIO``.

    ``forward`` is long-tailed as the training set is, its most frequent class first; ``backward`` is reversed.

    Raises
    ------
    UnknownNameError
        There is no such prior.
    SpecError
        The ratio is missing, below 1, or given where there is none.
    """
    kind, colon, ratio = text.strip().partition(":")
    if kind not in KINDS:
        raise unknown("test prior", kind, KINDS, where="--test-prior")
    if kind not in ("forward", "backward"):
        if colon:
            raise SpecError(f"the test prior '{kind}' takes no ratio", where=f"--test-prior {text}", hint=kind)
        return Prior(kind)
    try:
        value = float(ratio)
    except ValueError:
        value = 0.0
    if not 1 <= value <= MAX_RATIO:
        raise SpecError(
            f"the ratio must be a number from 1 to {MAX_RATIO:,}", where=f"--test-prior {text}", hint=f"{kind}:50"
        )
    return Prior(kind, value)
