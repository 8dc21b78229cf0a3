"""The page of imbalance-response curves: a figure, a table for each group of classes, and where curves cross."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, NullLocator

from fer_bench.harmless import cells
from fer_bench.reports import describe, figures, words
from fer_bench.reports.blocks import Block, Bullets, Code, Document, Figure, Paragraph, Part, TableBlock
from fer_bench.reports.response import MEAN, Crossing, Point, Response
from fer_bench.reports.tables import Column, Table, each, tabulate
from fer_bench.stats import Interval


def page(response: Response, name: str) -> Document:
    """The whole page as a document, for any format."""
    first = response.points[0].study
    intro = (
        Paragraph(
            f"{words.count(len(response.methods), 'method')} on {first.dataset} under "
            f"`{first.protocol.get('name', '')}`, trained on {words.count(len(response.points), 'training set')} of "
            "different imbalance. The test set is the same throughout."
        ),
    )
    marks = tuple(Paragraph(f"⚠ **Watermarked: not a fair estimate.** {reason}") for reason in first.watermarks)
    parts = [
        Part("curves", "Recall against imbalance", _curves(response)),
        Part("tables", "The numbers", tuple(_table_block(response, m) for m in response.measures)),
        Part("crossings", "Where curves cross", _crossings(response)),
        Part("sets", "Training sets", (_sets(response),)),
    ]
    if response.notes:
        parts.append(Part("missing", "What is missing or left out", (Bullets(response.notes),)))
    parts.append(Part("repeat", "How to repeat this", _repeat(response)))
    return Document(title=name, intro=intro + marks, parts=tuple(parts))


def _repeat(response: Response) -> tuple[Block, ...]:
    """Commands, versions and run ids."""
    studies = [p.study for p in response.points]
    commands = dict.fromkeys(s.command for s in studies if s.command)
    environment = describe.environment(studies[0])
    told = TableBlock(environment, "environment", "Versions and hardware", sortable=False) if environment else None
    ids = [f"{words.code(s.name)}: " + ", ".join(words.code(r.record.id) for r in s.runs) for s in studies]
    facts = f"Data fingerprint {words.code(studies[0].fingerprint)}. Runs in the ledger:"
    found = (Code("\n".join(commands)) if commands else None, told, Paragraph(facts), Bullets(tuple(ids)))
    return tuple(block for block in found if block is not None)


def csv_text(response: Response) -> str:
    """Every number of the page in long form, in percent and points with four decimals."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ["method", "group", "profile", "ratio", "images", "percent", "low", "high", "gain", "gain_low", "gain_high"]
    )
    for method in response.methods:
        for measure in response.measures:
            for point in response.points:
                gain = point.gain.get(method, {}).get(measure)
                rows.writerow(
                    [*cells([method, measure, point.profile]), f"{point.ratio:.4f}", point.images]
                    + [f"{100 * v:.4f}" for v in _ends(point.recall[method][measure])]
                    + ([f"{100 * v:.4f}" for v in _ends(gain)] if gain else ["", "", ""])
                )
    return out.getvalue()


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _title(measure: str) -> str:
    return "all classes" if measure == MEAN else measure


def _names(response: Response, measure: str) -> str:
    if measure == MEAN:
        return "mean-class accuracy"
    classes = response.points[0].study.classes
    return ", ".join(classes[i] for i in response.groups.members[measure])


def _curves(response: Response) -> tuple[Block, ...]:
    told = [f"**{_title(m)}**: {_names(response, m)}" for m in response.measures]
    why = f" No groups of classes: {response.groups.reason}." if response.groups.reason else ""
    return (
        Figure(
            "response", "Recall of groups of classes against the ratio of largest to smallest class", draw(response)
        ),
        Paragraph(
            "Mean recall of a group's classes, mean over seeds, with the 95 % interval over seeds and "
            f"images. The groups are those of the most imbalanced training set.{why}"
        ),
        Bullets(tuple(told)),
    )


@figures.styled
def draw(response: Response) -> Drawing:
    """One panel a group: recall against the ratio on a logarithmic axis, one line and band a method."""
    shown = response.measures
    figure, axes = figures.new_figure(2.7 * len(shown) + 0.4, 3.4, 1, len(shown), sharey=True)
    looks = figures.looks_of(response.methods)
    ratios = [p.ratio for p in response.points]
    for axis, measure in zip(axes[0], shown, strict=True):
        for label in response.methods:
            colour, marker, line = looks[label]
            found = [p.recall[label][measure] for p in response.points]
            low, value, high = (100 * np.array([getattr(i, k) for i in found]) for k in ("low", "value", "high"))
            axis.plot(ratios, value, color=colour, marker=marker, linestyle=line, markersize=4.5, label=label)
            axis.fill_between(ratios, low, high, color=colour, alpha=0.13, linewidth=0)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(ratios))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([f"{r:.3g}" for r in ratios])
        axis.set_title(_title(measure))
        axis.set_xlabel("largest : smallest class")
        axis.grid()
    axes[0, 0].set_ylabel("recall, %")
    figures.legend(figure, axes[0, 0])
    return figure


def _table_block(response: Response, measure: str) -> TableBlock:
    columns = [
        Column("Profile", lambda p: words.code(p.profile), right=False),
        Column("Ratio", lambda p: f"{p.ratio:.3g}"),
    ]
    columns += [Column(words.code(m), each(_recall, (m, measure))) for m in response.methods]
    others = [m for m in response.methods if response.reference not in (None, m)]
    columns += [Column(f"Gain of {words.code(m)}", each(_gain, (m, measure))) for m in others]
    caption = f"Recall in % of {_title(measure)} ({_names(response, measure)})"
    caption += f"; gains in points over {words.code(response.reference)}." if response.reference else "."
    table = tabulate(columns, response.points, caption)
    return TableBlock(table, f"response-{measure}", f"Recall of {_title(measure)} by imbalance")


def _recall(of: tuple[str, str], point: Point) -> str:
    return words.share_with_interval(point.recall[of[0]][of[1]])


def _gain(of: tuple[str, str], point: Point) -> str:
    gain = point.gain.get(of[0], {}).get(of[1])
    return words.gain_with_interval(gain) if gain else words.UNKNOWN


def _crossings(response: Response) -> tuple[Block, ...]:
    found = response.crossings()
    if response.reference is None:
        return (Paragraph("No method is the reference of all studies, so there is nothing to cross."),)
    if not found:
        return (Paragraph(f"No curve crosses that of {words.code(response.reference)} between the ratios studied."),)
    return (Bullets(tuple(_told(c, str(response.reference)) for c in found)),)


def _told(crossing: Crossing, reference: str) -> str:
    doubt = "" if crossing.certain else "; on at least one side the gain is within its interval of 0: no finding"
    return (
        f"{words.code(crossing.method)} and {words.code(reference)} cross in the recall of {_title(crossing.group)} "
        f"between ratio {crossing.below:.3g} and {crossing.above:.3g}, near {crossing.at:.3g}{doubt}."
    )


def _sets(response: Response) -> TableBlock:
    study = response.points[0].study
    order: Sequence[int] = response.points[-1].study.order
    columns = [
        Column("Profile", lambda p: words.code(p.profile), right=False),
        Column("Ratio", lambda p: f"{p.ratio:.3g}"),
        Column("Images", lambda p: f"{p.images:,}"),
    ]
    columns += [Column(study.classes[i], each(lambda i, p: f"{p.study.counts['train'][i]:,}", i)) for i in order]
    columns.append(Column("Seeds", lambda p: str(max(len(m.seeds) for m in p.study.methods))))
    columns.append(Column("Study", lambda p: words.code(p.study.name), right=False))
    table: Table = tabulate(columns, response.points, "Training images by class, the rarest class first.")
    return TableBlock(table, "response-sets", "Training sets of the curves")
