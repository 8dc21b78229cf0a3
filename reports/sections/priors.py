"""Section "Accuracy under other test priors": what the accuracy would be if expressions had other frequencies.

Nothing is retrained. If the classes keep their recalls r_c, the accuracy under class shares π is Σ π_c r_c
(label shift; Hong et al. 2021, "Disentangling label distribution for long-tailed visual recognition", for the forward
and backward priors). Predictions are not corrected for the prior either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.facts.priors import Prior
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.runs import subsets_of
from fer_bench.reports.render.blocks import Block, TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats.confusion import Score, accuracy_under_prior
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import score_intervals


def prior_table(numbers: Numbers, priors: Sequence[Prior]) -> Table:
    """Accuracy of every method under each prior, with its interval over trainings and images."""
    study = numbers.study
    asked = {str(p): p.shares(study) for p in priors}
    scores: dict[str, Score] = {name: partial(accuracy_under_prior, prior=shares) for name, shares in asked.items()}
    intervals = {}
    for method in numbers.methods:
        trainings, predictions = study.predictions(method.label)
        intervals[method.label] = score_intervals(jackknife(study.truth, predictions, scores, subsets_of(trainings)))
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
