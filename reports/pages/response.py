"""The page of imbalance-response curves: a figure, a table for each group of classes, and where curves cross."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, NullLocator

from fer_bench.printable import csv_cells
from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.response import ACCURACY, MEAN, Crossing, Point, Response
from fer_bench.reports.render import blocks
from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Figure, Notice, Paragraph, Part, TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.repeat import environment_table
from fer_bench.stats.intervals import Interval


def page(response: Response, name: str) -> Document:
    """The whole page as a document, for any format."""
    first = response.points[0].study
    intro = (
        Paragraph(
            f"{phrases.count(len(response.methods), 'method')} on {first.dataset} under "
            f"`{first.protocol.get('name', '')}`, trained on {phrases.count(len(response.points), 'training set')} of "
            "different imbalance. The test set is always the same."
        ),
    )
    reasons = dict.fromkeys(reason for p in response.points for reason in p.study.watermarks)
    marks = [Notice(f"**Watermarked: not a fair estimate.** {reason}") for reason in reasons]
    folds = ((p.study.name, answer.missing_folds(p.study)) for p in response.points)
    marks += [Notice(f"{phrases.code(name)}: {message}") for name, message in folds if message]
    parts = [
        Part("curves", "Recall against imbalance", _curves(response)),
        Part("tables", "Scores", _numbers(response)),
        Part("crossings", "Where curves cross", _crossings(response)),
        Part("sets", "Training sets", (_sets(response),)),
    ]
    if response.notes:
        parts.append(Part("missing", "What is missing or left out", (Bullets(response.notes),)))
    parts.append(Part("repeat", "How to reproduce this", _repeat(response)))
    notes = answer.footnotes([m for label in response.methods for m in response.of(label)])
    noted = tuple(replace(part, blocks=blocks.footnoted(part.blocks, notes)) for part in parts)
    return Document(title=name, intro=(*intro, *marks), parts=noted)


def _repeat(response: Response) -> tuple[Block, ...]:
    """Commands, versions and run ids."""
    studies = [p.study for p in response.points]
    commands = dict.fromkeys(s.command for s in studies if s.command)
    environment = environment_table(studies[0])
    versions = TableBlock(environment, "environment", "Versions and hardware", sortable=False) if environment else None
    ids = [f"{phrases.code(s.name)}: " + ", ".join(phrases.code(r.record.id) for r in s.runs) for s in studies]
    facts = f"Data fingerprint {phrases.code(studies[0].fingerprint)}. Runs in the ledger:"
    parts = (Code("\n".join(commands)) if commands else None, versions, Paragraph(facts), Bullets(tuple(ids)))
    return tuple(block for block in parts if block is not None)


CSV_HEADER = (
    "method", "group", "profile", "ratio", "images", "percent", "low", "high", "gain", "gain_low", "gain_high",
    "transductive", "blocked", "collapsed_seeds", "watermark",
)  # fmt: skip


def csv_text(response: Response) -> str:
    """Every number of the page in long form, in percent and points with four decimals."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(CSV_HEADER)
    for method in response.methods:
        for measure in response.tabled:
            for point in response.points:
                gain = point.gain.get(method, {}).get(measure)
                rows.writerow(
                    [*csv_cells([method, measure, point.profile]), f"{point.ratio:.4f}", point.images]
                    + [f"{100 * v:.4f}" for v in _ends(point.recall[method][measure])]
                    + ([f"{100 * v:.4f}" for v in _ends(gain)] if gain else ["", "", ""])
                    + _standing(point, method)
                )
    return out.getvalue()


def _standing(point: Point, label: str) -> list[str]:
    """Cells that say whether a method is ranked and has collapsed, at one point."""
    runs = point.study.method(label)
    collapsed = str(int(point.chance[label].collapsed.sum()))
    return [str(runs.transductive).lower(), "; ".join(runs.blocked), collapsed, "; ".join(point.study.watermarks)]


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _title(measure: str) -> str:
    return "all classes" if measure == MEAN else measure


def _of(measure: str) -> str:
    """ "recall of the tail classes", "mean-class accuracy", "accuracy"."""
    if measure in (MEAN, ACCURACY):
        return "mean-class accuracy" if measure == MEAN else "accuracy"
    return f"recall of the {measure} classes"


def _names(response: Response, measure: str) -> str:
    if measure == MEAN:
        return "mean recall of all classes"
    if measure == ACCURACY:
        return "share of all test images"
    classes = response.points[0].study.classes
    return ", ".join(classes[i] for i in response.groups.members[measure])


def _curves(response: Response) -> tuple[Block, ...]:
    groups = [f"**{_title(m)}**: {_names(response, m)}" for m in response.measures]
    varied = max((phrases.varied(p.study) for p in response.points), key=len)
    why = f" No groups of classes: {response.groups.reason}." if response.groups.reason else ""
    return (
        Figure(
            "response", "Recall of groups of classes against the ratio of largest to smallest class", draw(response)
        ),
        Paragraph(
            f"Mean recall over the classes of a group, mean over {varied}, with 95 % intervals over "
            f"{varied.replace(' and ', ', ')} and images{_one_seed(response)}.{_draws(response)} The groups are those "
            f"of the most imbalanced training set.{why}"
        ),
        Bullets(tuple(groups)),
    )


def _one_seed(response: Response) -> str:
    """What intervals leave out if every method has a single seed, as the end of a sentence."""
    one = all(len(p.study.method(m).trainings) == 1 for p in response.points for m in response.methods)
    return " (over images only here: one seed says nothing about other training runs)" * one


def _draws(response: Response) -> str:
    """A sentence on points whose runs share one draw of a thinned training set; empty where there is none."""
    single = [phrases.code(p.profile) for p in response.points if phrases.one_draw(p.study)]
    if not single:
        return ""
    return (
        f" All runs on {phrases.listed(single)} train on the same draw of the thinned training set, so the intervals "
        f"say nothing about other draws; `--subsets {phrases.SUBSETS}` would."
    )


@figures.styled
def draw(response: Response) -> Drawing:
    """One panel per group: recall against the ratio on a logarithmic axis, a line and a band for each method."""
    measures = response.measures
    figure, axes = figures.new_figure(2.7 * len(measures) + 0.4, 3.4, 1, len(measures), sharey=True)
    looks = figures.looks_of(response.methods)
    ratios = [p.ratio for p in response.points]
    for axis, measure in zip(axes[0], measures, strict=True):
        for label in response.methods:
            colour, marker, line = looks[label]
            intervals = [p.recall[label][measure] for p in response.points]
            low, value, high = (100 * np.array([getattr(i, k) for i in intervals]) for k in ("low", "value", "high"))
            name = label + response.mark(label)
            axis.plot(ratios, value, color=colour, marker=marker, linestyle=line, markersize=4.5, label=name)
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
        Column("Profile", lambda p: phrases.code(p.profile), right=False),
        Column("Ratio", lambda p: f"{p.ratio:.3g}"),
    ]
    columns += [Column(_name(response, m), each(_recall, (m, measure))) for m in response.methods]
    columns += [
        Column(f"Gain of {_name(response, m)}", each(_gain, (response, m, measure))) for m in _compared(response)
    ]
    of = _of(measure)
    caption = f"{of[0].upper()}{of[1:]} in % ({_names(response, measure)})"
    caption += f"; gains in points over {phrases.code(response.reference)}" if response.reference else ""
    table = tabulate(columns, response.points, f"{caption}.{_doubtful(response)}")
    return TableBlock(table, f"response-{measure}", f"{of[0].upper()}{of[1:]} by imbalance")


def _name(response: Response, label: str) -> str:
    return phrases.code(label) + response.mark(label)


def _compared(response: Response) -> list[str]:
    return [m for m in response.methods if response.reference not in (None, m)]


def _doubtful(response: Response) -> str:
    """What ∅ means, as the end of a caption, where tables show it."""
    marked = any(p.chance[m].doubtful for p in response.points for m in response.methods)
    return " ∅: the method or its reference has collapsed or is not significantly better than chance." * marked


def _numbers(response: Response) -> tuple[Block, ...]:
    """A table for each measure, the side effects of gains, and methods that hardly classify."""
    tables = [_table_block(response, m) for m in response.tabled]
    hardly = [
        f"{phrases.code(p.profile)}: {sentence}"
        for p in response.points
        for label in response.methods
        if (sentence := answer.hardly_looks(p.study, _name(response, label), p.chance[label]))
    ]
    return (
        *tables,
        *([_price(response)] if _compared(response) else []),
        *([Bullets(tuple(hardly))] if hardly else []),
    )


def _price(response: Response) -> TableBlock:
    """Every method's gains at every ratio side by side: what the rare classes gain and what it costs."""
    rows = [(label, point) for label in _compared(response) for point in response.points]
    columns = [
        Column("Method", lambda r: _name(response, r[0]), right=False),
        Column("Ratio", lambda r: f"{r[1].ratio:.3g}"),
        Column(_heading(response), lambda r: phrases.trainings(r[1].study, r[1].shared.get(r[0], ()))),
    ]
    for measure in (*reversed([*response.groups.members]), MEAN, ACCURACY):
        cell = each(lambda m, r: _gain((response, r[0], m), r[1]), measure)
        columns.append(Column(_of(measure).capitalize(), cell))
    barred = f" {_name(response, str(response.reference))} is not ranked, so no gain over it is claimed."
    caption = (
        f"Gains in points over {phrases.code(str(response.reference))}, with their cost. Only a study's own report "
        f"claims gains.{barred * bool(response.mark(str(response.reference)))}{_doubtful(response)}"
    )
    return TableBlock(tabulate(columns, rows, caption), "response-price", "Gains and their cost by imbalance")


def _recall(of: tuple[str, str], point: Point) -> str:
    return phrases.share_with_interval(point.recall[of[0]][of[1]]) + " ∅" * point.chance[of[0]].doubtful


def _gain(of: tuple[Response, str, str], point: Point) -> str:
    response, label, measure = of
    gain = point.gain.get(label, {}).get(measure)
    doubtful = any(point.chance[m].doubtful for m in (label, str(response.reference)))
    return phrases.gain_with_interval(gain) + " ∅" * doubtful if gain else phrases.UNKNOWN


def _crossings(response: Response) -> tuple[Block, ...]:
    crossings = response.crossings()
    if response.reference is None:
        return (Paragraph("The studies have no common reference, so there are no curves to cross."),)
    if not crossings:
        return (Paragraph(f"No curve crosses that of {phrases.code(response.reference)} between the ratios studied."),)
    return (Bullets(tuple(_crossing_sentence(c, str(response.reference)) for c in crossings)),)


def _crossing_sentence(crossing: Crossing, reference: str) -> str:
    doubt = ""
    if not crossing.certain:
        doubt = ". Not a finding: on at least one side the interval of the gain includes 0"
    elif not crossing.sound:
        doubt = ". Not a finding: there, one of them is not ranked, has collapsed or is at chance"
    elif crossing.pairs < 2:
        doubt = ". Not a finding: one seed does not show the variation between trainings"
    return (
        f"{phrases.code(crossing.method)} and {phrases.code(reference)} cross in {_of(crossing.group)} "
        f"between the ratios {crossing.below:.3g} and {crossing.above:.3g}, near {crossing.at:.3g}{doubt}."
    )


def _heading(response: Response) -> str:
    return max((phrases.trainings_heading(p.study) for p in response.points), key=len)


def _most(point: Point) -> str:
    """How many trainings the methods of a study have at most."""
    return phrases.trainings(point.study, max((m.trainings for m in point.study.methods), key=len))


def _sets(response: Response) -> TableBlock:
    study = response.points[0].study
    order: Sequence[int] = response.points[-1].study.order
    columns = [
        Column("Profile", lambda p: phrases.code(p.profile), right=False),
        Column("Ratio", lambda p: f"{p.ratio:.3g}"),
        Column("Images", lambda p: f"{p.images:,}"),
    ]
    columns += [Column(study.classes[i], each(lambda i, p: f"{p.study.counts['train'][i]:,}", i)) for i in order]
    columns.append(Column(_heading(response), _most))
    columns.append(Column("Study", lambda p: phrases.code(p.study.name), right=False))
    table: Table = tabulate(columns, response.points, "Training images by class, from the rarest to the most frequent.")
    return TableBlock(table, "response-sets", "Training sets of the curves")
