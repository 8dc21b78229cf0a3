"""Section "Accuracy under other test priors": what the accuracy would be if expressions had other frequencies.

Nothing is retrained. If the classes keep their recalls r_c, the accuracy under class shares π is Σ π_c r_c
(label shift; Hong et al. 2021, "Disentangling label distribution for long-tailed visual recognition", for the forward
and backward priors). Predictions are not corrected for the prior either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fer_bench.data.imbalance import MAX_RATIO
from fer_bench.errors import SpecError, unknown
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.render.blocks import Block, TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats.confusion import Score, accuracy_under_prior
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import score_intervals

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


def prior_table(numbers: Numbers, priors: Sequence[Prior]) -> Table:
    """Accuracy of every method under each prior, with its interval over seeds and images."""
    study = numbers.study
    asked = {str(p): p.shares(study) for p in priors}
    scores: dict[str, Score] = {name: partial(accuracy_under_prior, prior=shares) for name, shares in asked.items()}
    intervals = {
        m.label: score_intervals(jackknife(study.truth, study.predictions(m.label)[1], scores)) for m in numbers.methods
    }
    columns = [Column("Test prior", str, right=False)]
    columns.append(Column("Rarest : most frequent", lambda p: _extremes(study, asked[p])))
    columns += [
        Column(phrases.code(m.label) + m.mark, each(lambda f, p: phrases.share_with_interval(f[p]), intervals[m.label]))
        for m in numbers.methods
    ]
    caption = (
        "Accuracy in % if the test set had these class shares and every class kept its recall (re-weighted, not "
        "retrained). Forward: shares fall from the most frequent training class to the rarest; backward: the reverse."
    )
    return tabulate(columns, list(asked), caption)


def _extremes(study: StudyData, shares: np.ndarray) -> str:
    """Shares of the rarest and of the most frequent training class, in %."""
    return f"{100 * shares[study.order[0]]:.1f} : {100 * shares[study.order[-1]]:.1f}"


def build(context: Context) -> Block | None:
    """Accuracy under the test priors that were asked for."""
    if not context.priors:
        return None
    return TableBlock(prior_table(context.numbers, context.priors), "priors", "Accuracy under other test priors")


SECTION = Section("priors", "Accuracy under other test priors", build)
