"""Section "Calibration"."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.render.blocks import Block, Bullets, Figure
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.metric_tables import by_metric, metric_blocks
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats import probabilities

CALIBRATION = ("ece", "classwise_ece", "brier", "class_ece")


def build(context: Context) -> list[Block]:
    """Calibration errors, a reliability diagram, and what methods do to confidences by design."""
    numbers, results = context.numbers, context.results
    metrics, reasons = by_metric(results, [n for n in results.metrics if n in CALIBRATION])
    drawn = draw_reliability(numbers, [r.diagram for r in results.methods])
    alt = "Accuracy against confidence for every method"
    figure: list[Block] = [Figure("reliability", alt, drawn)] if drawn else []
    said = [(m.label, m.card.get("calibration")) for m in context.study.methods]
    designed = [f"{phrases.code(label)}, by design: {text}" for label, text in said if text]
    return [*metric_blocks(numbers, metrics, "calibration"), *figure, Bullets((*designed, *reasons))]


@figures.styled
def draw_reliability(numbers: Numbers, diagrams: Sequence[probabilities.Reliability | None]) -> Drawing | None:
    """Accuracy in bins of confidence, all seeds of a method together; below the line: overconfident."""
    known = [(m, r) for m, r in zip(numbers.methods, diagrams, strict=True) if r is not None]
    if not known:
        return None
    figure, axes = figures.new_figure(4.8, 4.4)
    axis, looks = axes[0, 0], figures.looks(numbers)
    axis.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.9, linestyle=":")
    for method, bins in known:
        full = bins.counts >= 10
        colour, marker, line = looks[method.label]
        axis.plot(
            100 * bins.confidence[full], 100 * bins.frequency[full], color=colour, marker=marker, linestyle=line,
            markersize=4, label=figures.legend_name(method),
        )  # fmt: skip
    axis.set_xlabel("confidence, % (bins with at least 10 predictions)")
    axis.set_ylabel("accuracy, %")
    axis.set_aspect("equal")
    axis.grid()
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


SECTION = Section("calibration", "Calibration", build, slow=True)
