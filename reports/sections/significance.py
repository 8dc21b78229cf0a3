"""Section "Further tests": probability of improvement, paired bootstrap, McNemar for each seed, ranks over folds.

None of them decides the verdict on a method (:mod:`fer_bench.stats.mcnemar` and :mod:`fer_bench.stats.ranks` say why);
they are included because other work reports them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import DRAWS, IMPROVED, SCORES, MethodNumbers, Numbers
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.runs import Training
from fer_bench.reports.render.blocks import Block, Figure, Paragraph, TableBlock
from fer_bench.reports.render.table import Column, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats import confusion
from fer_bench.stats.mcnemar import McNemar, mcnemar_by_seed

if TYPE_CHECKING:
    from fer_bench.stats.ranks import Ranking

FEWEST_FOLDS = 3
SCORE = "mean_recall"


def build(context: Context) -> list[Block]:
    """The tests that the study has data for."""
    numbers = context.numbers
    return [*_improvement(numbers), *_resampled(numbers), *_mcnemar(numbers), *_ranks(numbers)]


@dataclass(frozen=True)
class Pair:
    """Predictions of a method and of the reference for the subsets and seeds that they share, [R, n]."""

    method: MethodNumbers
    trainings: tuple[Training, ...]
    ours: np.ndarray
    theirs: np.ndarray


def pairs(numbers: Numbers) -> Iterator[Pair]:
    """The pairs of all methods that are compared."""
    study = numbers.study
    for method in numbers.compared:
        yield Pair(method, *study.paired(method.label, str(study.reference)))


def _shared(study: StudyData) -> Column:
    """How many subsets and seeds a method shares with the reference."""
    return Column(phrases.trainings_heading(study), lambda m: phrases.trainings(study, m.shared))


def _improvement(numbers: Numbers) -> list[Block]:
    study = numbers.study
    rows = [m for m in numbers.compared if m.improvement]
    if not rows:
        return []
    columns = [Column("Method", phrases.method_name, right=False)]
    columns.append(_shared(study))
    for name in IMPROVED:
        cell = each(lambda n, m: phrases.share_with_interval(m.improvement[n]), name)
        columns.append(Column(f"P(better {SCORES[name]})", cell))
    caption = (
        f"In %: how often one run of the method beats one run of {phrases.code(str(study.reference))}, ties counting "
        "half (Agarwal et al. 2021), with the 95 % bootstrap interval. It says how often, not by how much."
    )
    return [TableBlock(tabulate(columns, rows, caption), "improvement", "Probability of improvement")]


def _resampled(numbers: Numbers) -> list[Block]:
    """The headline's gains with the report's own intervals and those of the paired bootstrap."""
    if not numbers.compared:
        return []
    columns = [Column("Method", phrases.method_name, right=False), _shared(numbers.study)]
    for name in (*numbers.headline, "accuracy"):
        heading = phrases.endpoint(numbers.study, name, named=False)
        columns.append(Column(f"Gain in {heading}", each(lambda n, m: phrases.gain_with_interval(m.gains[n]), name)))
        columns.append(Column("Bootstrap", each(lambda n, m: phrases.limits(m.resampled[n]), name)))
    varied = phrases.varied(numbers.study)
    resampled = varied.replace(" and ", ", of ")
    drawn = "images within classes" if numbers.study.clusters is None else "sampling units (see the answer)"
    caption = (
        f"Gains over {phrases.code(str(numbers.study.reference))} in points, unadjusted. Bootstrap: the 95 % "
        f"percentile interval of {DRAWS:,} paired resamples of {resampled} and of {drawn}. It is too short when few "
        f"{varied} differ a lot and too wide when they do not, so no verdict depends on it."
    )
    return [TableBlock(tabulate(columns, numbers.compared, caption), "resampled", "Gains by the paired bootstrap")]


def _mcnemar(numbers: Numbers) -> list[Block]:
    if numbers.study.clusters is not None:
        return [
            Paragraph("McNemar's test is not given, because it treats every test image as an independent observation.")
        ]
    crossed, one = numbers.study.crossed, numbers.study.one
    rows: list[tuple[Pair, Training, McNemar]] = []
    for pair in pairs(numbers):
        tests = mcnemar_by_seed(numbers.study.labels, pair.ours, pair.theirs)
        rows += [(pair, training, test) for training, test in zip(pair.trainings, tests, strict=True)]
    if not rows:
        return []
    columns = [
        Column("Method", lambda r: phrases.method_name(r[0].method), right=False),
        *([Column("Subset", lambda r: str(r[1].subset))] if crossed else []),
        Column("Seed", lambda r: str(r[1].seed)),
        Column("Only the method right", lambda r: f"{r[2].gained:,}"),
        Column("Only the reference right", lambda r: f"{r[2].lost:,}"),
        Column("Exact p", lambda r: phrases.p_value(r[2].exact_p)),
        Column("mid-p", lambda r: phrases.p_value(r[2].mid_p)),
    ]
    caption = (
        f"McNemar's test of each {one}'s pair of networks against {phrases.code(str(numbers.study.reference))} "
        "(Fagerland et al. 2013), uncorrected. It compares two networks, not two methods: two networks "
        "of the same method differ as well."
    )
    return [TableBlock(tabulate(columns, rows, caption), "mcnemar", f"McNemar's test by {one}")]


# -- ranks over folds ------------------------------------------------------------------------------------------------


def ranking(numbers: Numbers) -> Ranking | None:
    """Ranks of the methods over the folds that all of them have; None for too few folds or methods, or a watermark."""
    study = numbers.study
    ranked = [m for m in study.methods if m.ranked and not study.watermarks]
    by_method = [{r.fold for r in m.runs} for m in ranked]
    folds = sorted(set.intersection(*by_method)) if by_method else []
    if len(folds) < FEWEST_FOLDS or len(by_method) < 2:
        return None
    from fer_bench.stats.ranks import rank_methods  # late: scipy.stats takes half a second

    score, classes = confusion.SCORES[SCORE], len(study.classes)
    values = np.zeros((len(folds), len(ranked)))
    for place, method in enumerate(ranked):
        for row, fold in enumerate(folds):
            runs = [r for r in method.runs if r.fold == fold]
            matrices = [confusion.confusion_matrix(r.labels, r.predictions, classes) for r in runs]
            values[row, place] = np.mean([score(matrix) for matrix in matrices])
    return rank_methods(values, tuple(m.label for m in ranked))


def _ranks(numbers: Numbers) -> list[Block]:
    ranks = ranking(numbers)
    if ranks is None:
        return []
    text = (
        f"Ranks in mean-class accuracy over {ranks.blocks} folds: {rank_tests(ranks, 'folds')} Folds share training "
        "images, so these tests are overconfident: take the diagram as a description, not as evidence."
    )
    alt = "Critical-difference diagram: mean ranks of the methods over the folds"
    return [Paragraph(text), Figure("ranks", alt, draw_ranks(ranks))]


def rank_tests(ranks: Ranking, blocks: str) -> str:
    """The tests over the `blocks` ("folds", "data sets"), and the meaning of the bars in the diagram."""
    f_test = f"Iman and Davenport's F {ranks.f:.2f}, p {phrases.p_value(ranks.f_p)}"
    if not np.isfinite(ranks.f):
        f_test = f"Iman and Davenport's F is infinite, because all {blocks} rank alike, so its p is left out"
    return (
        f"Friedman's chi² {ranks.chi2:.2f}, p {phrases.p_value(ranks.chi2_p)}; {f_test}; permutation of the methods "
        f"within the {blocks}, p {phrases.p_value(ranks.exact_p)}. Bars join methods whose mean ranks differ by less "
        f"than Nemenyi's critical difference of {ranks.critical_difference:.2f} (Demšar 2006)."
    )


@figures.styled
def draw_ranks(ranks: Ranking) -> Drawing:
    """A critical-difference diagram: the best mean rank on the right; bars join methods that do not differ."""
    k = len(ranks.names)
    half = -(-k // 2)
    figure, axes = figures.new_figure(figures.WIDTH, 1.3 + 0.28 * (half + len(ranks.cliques)))
    axis = axes[0, 0]
    bars = 0.35 * (len(ranks.cliques) + 1)
    axis.set_xlim(k + 0.6 + 0.12 * k, 0.4 - 0.12 * k)
    axis.set_ylim(-bars - 0.5 * half - 0.2, 1.3)
    axis.axis("off")
    axis.plot([1, k], [0, 0], color="#222222", linewidth=1.2)
    for rank in range(1, k + 1):
        axis.plot([rank, rank], [0, 0.12], color="#222222", linewidth=1)
        axis.text(rank, 0.2, str(rank), ha="center", va="bottom", fontsize=8)
    for place, (name, rank) in enumerate(zip(ranks.names, ranks.ranks, strict=True)):
        best = place < half
        depth = -bars - 0.5 * (place if best else k - 1 - place) - 0.2
        end = 0.9 if best else k + 0.1
        axis.plot([rank, rank, end], [0, depth, depth], color="#888888", linewidth=0.9)
        text = f"{figures.shorten(name, 30)}  {rank:.2f}"
        axis.text(end, depth, f"  {text}  ", ha="left" if best else "right", va="center", fontsize=8.5)
    for level, clique in enumerate(ranks.cliques):
        ends = [ranks.ranks[ranks.names.index(n)] for n in (clique[0], clique[-1])]
        axis.plot(ends, [-0.35 * (level + 1)] * 2, color="#D55E00", linewidth=3.5, solid_capstyle="round")
    width = ranks.critical_difference
    axis.plot([1, 1 + width], [0.85, 0.85], color="#222222", linewidth=1.2)
    axis.text(1 + width / 2, 0.93, f"critical difference {width:.2f}", ha="center", fontsize=8)
    return figure


SECTION = Section("tests", "Further tests", build)
