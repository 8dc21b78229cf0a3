"""Section "Operating point": has a method learned something, or does it decide the reference's outputs differently?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import operating_point, phrases
from fer_bench.reports.facts.minority import TAIL
from fer_bench.reports.facts.numbers import MethodNumbers, Numbers
from fer_bench.reports.facts.operating_point import TAUS, OperatingPoints
from fer_bench.reports.render.blocks import Block, Figure, Paragraph, TableBlock
from fer_bench.reports.render.table import Column, Table, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats import confusion
from fer_bench.stats.intervals import Interval
from fer_bench.stats.metrics import Values

MARGIN = 8.0  # points of accuracy that the figure shows below the least accurate mark


def build(context: Context) -> list[Block]:
    """The curve of the shifted reference with every method as a point, and the distances from it."""
    numbers = context.numbers
    study = numbers.study
    if study.reference is None:
        return []
    if why := operating_point.missing(study):
        return [Paragraph(f"There is no curve of operating points, because {why}.")]
    points = operating_point.operating_points(study)
    drawn = draw(numbers, points)
    alt = "Mean recall of the tail against accuracy: the shifted reference as a curve, every method as a point"
    return [
        Paragraph(_how_to_read(numbers)),
        Paragraph(_second(numbers, points)),
        Figure("operating-point", alt, drawn),
        TableBlock(_table(context, points), "operating-point", "Operating points"),
    ]


def _how_to_read(numbers: Numbers) -> str:
    study = numbers.study
    against = phrases.code(str(study.reference))
    rare = phrases.listed([study.classes[i] for i in reversed(numbers.groups.members["tail"])])
    return (
        f"More recall of the rare expressions ({rare}) can be had from {against} without training: subtract τ log π "
        "from its logits, with the class shares π in training (Menon et al. 2021). The curve shows what that gives as "
        f"τ grows from {TAUS[0]:g} to {TAUS[-1]:g}, and what it costs in accuracy. A method on the curve does what a "
        "shift of the decision does; one above it has learned something that no shift gives. The curve is computed "
        "from test outputs, so it is descriptive: nothing is chosen by it."
    )


def _second(numbers: Numbers, points: OperatingPoints) -> str:
    study = numbers.study
    if study.second_reference is None:
        return (
            "This study has no second reference, the same network with τ chosen on validation. Rerun its command "
            "without `--no-second-reference` to add one where the reference has its default parameters: nothing is "
            "trained, but the validation outputs of the reference's runs must still be there (published ledgers leave "
            "them out)."
        )
    name = phrases.code(study.second_reference)
    if not points.chosen:
        return f"{name} is the second reference: the same network at an operating point that validation chose."
    taus = ", ".join(f"{tau:g}" for tau in dict.fromkeys(sorted(points.chosen)))
    return f"{name} is the second reference: the same network, with τ chosen on validation ({taus})."


# -- the table -------------------------------------------------------------------------------------------------------


def _table(context: Context, points: OperatingPoints) -> Table:
    """Recall, precision and AUROC of the tail, the scores over all classes, and the distance from the curve."""
    numbers = context.numbers
    against = phrases.code(str(numbers.study.reference))
    auroc = _aurocs(context)
    columns = [
        Column("Method", phrases.method_name, right=False),
        Column("Tail recall", lambda m: phrases.share_with_interval(m.scores[TAIL])),
        Column("Tail precision", of_tail(numbers, precisions(numbers))),
        Column("Tail AUROC", of_tail(numbers, lambda m: auroc.get(m.label))),
        Column("Accuracy", lambda m: phrases.share_with_interval(m.scores["accuracy"])),
        Column("Mean-class accuracy", lambda m: phrases.share_with_interval(m.scores["mean_recall"])),
        Column("Above the curve", lambda m: _distance(points.distances.get(m.label))),
    ]
    caption = (
        f"In %: {phrases.mean_over_seeds(numbers)}, with {phrases.interval_of(numbers)}. Precision and AUROC (each "
        "class against the rest) are means over the classes of the tail; AUROC hardly depends on τ. Above the curve: "
        f"recall of the tail in points above that of {against} at the τ that gives it the method's accuracy, seed by "
        "seed, with a 95 % t-interval that is not corrected for the number of methods. A method beyond an end of the "
        "curve is compared with that end. Where the curve is steep, near the reference's highest accuracy, intervals "
        "are wide."
    )
    return tabulate(columns, numbers.methods, caption)


def _distance(distance: Interval | None) -> str:
    return phrases.UNKNOWN if distance is None else phrases.gain_with_interval(distance)


def of_tail(numbers: Numbers, by_class: Callable[[MethodNumbers], np.ndarray | None]) -> Callable[[MethodNumbers], str]:
    """The cell of a score that each class has for each seed [S, C]: its mean over the tail and over seeds."""
    tail = list(numbers.groups.members["tail"])

    def cell(method: MethodNumbers) -> str:
        values = by_class(method)
        return phrases.UNKNOWN if values is None else phrases.percent(float(values[:, tail].mean()))

    return cell


def precisions(numbers: Numbers) -> Callable[[MethodNumbers], np.ndarray]:
    study = numbers.study

    def of(method: MethodNumbers) -> np.ndarray:
        _, predictions = study.predictions(method.label)
        return confusion.precisions(confusion.Margins.count(study.labels, predictions, len(study.classes)))

    return of


def _aurocs(context: Context) -> dict[str, np.ndarray | None]:
    """AUROC of every class and seed [S, C], by method; None where it can't be computed."""
    found = [of.metrics.get("auroc") for of in context.results.methods]
    values = [of.values if isinstance(of, Values) else None for of in found]
    return dict(zip((m.label for m in context.study.methods), values, strict=True))


# -- the figure ------------------------------------------------------------------------------------------------------


@figures.styled
def draw(numbers: Numbers, points: OperatingPoints) -> Drawing:
    """Recall of the tail (y) against accuracy (x): the reference's curve with its marks, and every method."""
    figure, axes = figures.new_figure(6.2, 4.6)
    axis = axes[0, 0]
    curve, reference = points.curve, numbers.method(str(numbers.study.reference))
    label = f"{figures.shorten(reference.short)}, shifted"
    axis.plot(100 * curve.accuracy, 100 * curve.tail, color="#555555", linewidth=1.3, zorder=1, label=label)
    marks = [(0.0, "τ = 0"), (1.0, "τ = 1")]
    if points.chosen:
        marks.append((float(np.mean(points.chosen)), f"τ = {np.mean(points.chosen):.2g} (chosen)"))
    for tau, text in marks:
        x, y = (100 * v for v in curve.at(tau))
        axis.plot(x, y, "|", color="#555555", markersize=11, markeredgewidth=1.4, zorder=1)
        place = (8, 6) if tau else (8, -14)  # beyond the curve, and at its lower end below it
        paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
        axis.annotate(text, (x, y), xytext=place, textcoords="offset points", fontsize=8, color="#555555", bbox=paper)
    figures.crosses(axis, numbers, numbers.methods, lambda m: (m.scores["accuracy"], m.scores[TAIL]))
    lowest = min(curve.at(max(tau for tau, _ in marks))[0], *(m.scores["accuracy"].low for m in numbers.methods))
    axis.set_xlim(left=max(0.0, 100 * lowest - MARGIN))
    axis.set_xlabel("accuracy, %")
    axis.set_ylabel("mean recall of the tail, %")
    axis.grid()
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


SECTION = Section("operating-point", "Operating point", build, slow=True)
