"""The sections of a report: an ordered list of functions from :class:`Context` to blocks.

A package adds sections of its own by an entry point of the group ``fer_bench.report_sections`` that leads to a
:class:`Section` or to a list of them::

    from fer_bench.reports.sections.contents import Section
    SECTION = Section("seeds", "Seeds", lambda context: f"{len(context.study.runs)} runs.", after="scores")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fer_bench.errors import FerBenchError, PluginError
from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.numbers import SCORES, Numbers
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.scoring import Results, Scoring, begin
from fer_bench.reports.facts.second_process import Work
from fer_bench.reports.render import blocks, marks
from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Figure, Notice, Paragraph, Part, TableBlock
from fer_bench.reports.render.table import Table
from fer_bench.reports.sections import describe, figures, further, minority, published_claims, significance, tables
from fer_bench.reports.sections.priors import Prior, prior_table

GROUP = "fer_bench.report_sections"


@dataclass(frozen=True)
class Context:
    """What a section may read: the numbers, the test priors asked for, and remarks on the report itself.

    `scoring` is the scoring of the study's logits, where that has begun already.
    """

    numbers: Numbers
    priors: tuple[Prior, ...] = ()
    remarks: tuple[str, ...] = ()
    scoring: Scoring | None = None

    @property
    def study(self) -> StudyData:
        """The study that is reported."""
        return self.numbers.study

    @cached_property
    def results(self) -> Results:
        """Scores of the stored logits, waited for or computed for the first section that asks."""
        return (self.scoring or begin(self.study, Work())).results()

    def figure(self, name: str, draw: Callable[[Numbers], Any], alt: str) -> Figure | None:
        """The figure that `draw` makes of the numbers; None where there is nothing to draw."""
        drawn = draw(self.numbers)
        return None if drawn is None else Figure(name, alt, drawn)


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes
    ----------
    name : str
        What it is called in code and in anchors.
    title : str
        Its heading.
    build : callable
        From :class:`Context` to a block, a text (a paragraph), or a list of both; None or an empty one is left out,
        and a section without blocks is, too.
    after : str
        Name of the section below which it stands; the last place where empty.
    slow : bool
        It waits for what a second process computes, so it is built after all others.
    origin : str
        The entry point that brought it; empty for built-in ones.
    """

    name: str
    title: str
    build: Callable[[Context], Any]
    after: str = ""
    slow: bool = False
    origin: str = ""


def answer_section(context: Context) -> list:
    """Summary, one line a method, what is no classifier at all, and what a reader must keep in mind."""
    study, numbers = context.study, context.numbers
    remarks = phrases.count(len(study.notes), "remark")
    return [
        answer.missing_folds(study),
        answer.summary(numbers),
        Bullets(tuple(answer.headline(numbers, m) for m in numbers.compared)),
        Bullets(tuple(answer.no_classifiers(numbers))),
        " ".join(answer.cautions(numbers)),
        phrases.sampling(study),
        f"{remarks} on missing or unusable records: see below." if study.notes else "",
    ]


def recall_section(context: Context) -> list:
    """Recall of every class and the gains over the reference."""
    numbers = context.numbers
    gains = tables.gain_table(numbers)
    over = f"Gains over {phrases.code(context.study.reference or '')}"
    return [
        TableBlock(tables.recall_table(numbers), "recall", "Recall of every class"),
        context.figure("recall", figures.recall, "Recall of every class and method with intervals"),
        TableBlock(gains, "gains", over, footer=len(SCORES)) if gains else None,
        context.figure("gains", figures.gains, "Gain over the reference for every class, with intervals"),
    ]


def scores_section(context: Context) -> list:
    """Accuracy, mean-class accuracy, macro-F1; pooled over folds and by fold, where there are several."""
    folds = tables.fold_table(context.numbers)
    return [
        TableBlock(tables.score_table(context.numbers), "scores", "Overall scores"),
        TableBlock(tables.chance_table(context.numbers), "chance", "Against answers that ignore the image"),
        TableBlock(folds, "folds", "Scores pooled over folds and by fold") if folds else None,
    ]


def prior_section(context: Context) -> Block | None:
    """Accuracy under the test priors that were asked for."""
    if not context.priors:
        return None
    return TableBlock(prior_table(context.numbers, context.priors), "priors", "Accuracy under other test priors")


def frequency_section(context: Context) -> Block | None:
    """Recall against the number of training images."""
    return context.figure("frequency", figures.frequency, "Recall against the number of training images of the class")


def leak_section(context: Context) -> list | str:
    """The honest number beside the oracle's, and how far scores move between the last epochs."""
    table = tables.leak_table(context.numbers)
    if table is None:
        return "No run kept its per-epoch test predictions, so the oracle is not known."
    luck = further.luck_table(context.numbers)
    return [
        TableBlock(table, "leak", "Honest against oracle"),
        TableBlock(luck, "luck", "Single-epoch luck") if luck else None,
    ]


def confusion_section(context: Context) -> list:
    """Confusion matrices as a figure and as tables."""
    parts: list = [context.figure("confusion", figures.confusion, "Row-normalised confusion matrices")]
    classes = len(context.study.classes)
    if classes > figures.MOST:
        rarest = f"The figures show the {figures.MOST} rarest of {classes:,} classes."
        return [*parts, f"{rarest} Tables of {classes:,} by {classes:,} cells are left out."]
    for method in context.numbers.methods:
        table = tables.confusion_table(context.numbers, method)
        what = f"{tables.title(method)}, rows in %{tables.pooled(context.study, method)}"
        parts.append(f"{what}:")
        parts.append(TableBlock(table, marks.slug(f"confusion {method.label}"), f"Confusion matrix of {what}"))
    return parts


def curves_section(context: Context) -> Block | str:
    """Learning curves on the validation set."""
    alt = "Training loss and validation mean-class accuracy by epoch"
    return context.figure("curves", figures.curves, alt) or "No run kept its history."


def compared_section(context: Context) -> list:
    """Everything that is shared by all runs, what differs, the methods and the data."""
    study = context.study
    shared, differing = describe.settings(study)
    alone = len(study.methods) == 1
    alike = "All runs share" if alone else "All methods share"
    different: list = [f"{alike} every setting above{'' if alone else '; they differ in the method alone'}."]
    if differing is not None:
        table = TableBlock(differing, "differing", "Settings that differ between the methods")
        different = [f"What differs between the {'runs' if alone else 'methods'}:", table]
    deviations = [f"{phrases.code(m.label)}: {d}" for m in study.methods for d in m.card.get("deviations") or ()]
    return [
        _listing(shared, "settings", "Settings that all runs share"),
        *different,
        *_search(study),
        TableBlock(tables.method_table(study), "methods", "Methods as their cards describe them"),
        "Deviations from the papers:" if deviations else "",
        Bullets(tuple(deviations)),
        "Images by class:",
        TableBlock(tables.counts_table(study), "images", "Images by class", footer=1),
    ]


def _search(study: StudyData) -> list:
    """The search that chose the methods' configurations, where one did."""
    how, what = describe.searches(study), describe.choices(study)
    return [
        describe.tuned_sentence(study),
        TableBlock(how, "search", "The search behind each method") if how else None,
        TableBlock(what, "chosen", "What was searched and chosen", sortable=False) if what else None,
    ]


def _listing(table: Table, name: str, title: str) -> TableBlock:
    return TableBlock(table, name, title, sortable=False)


def trust_section(context: Context) -> list:
    """How often the test was opened, and the probe for predictions that depend on the batch."""
    study = context.study
    lines = tuple(
        f"{r.name} opened its test set {int(r.facts['seal'].get('count', 0))} times."
        for r in study.runs
        if r.facts.get("seal") and int(r.facts["seal"].get("count", 0)) != 1
    )
    tried = ((phrases.code(m.label), m.blocked) for m in study.methods if m.blocked)
    lines += tuple(f"{label} tried, and was refused: {answer.attempts(of, len(of))}." for label, of in tried)
    why = "The probe predicts images again: alone, in batches of other sizes and in other orders."
    return [TableBlock(tables.seal_table(study), "trust", "Seal and probe"), why, Bullets(lines)]


def missing_section(context: Context) -> Block | str:
    """What is missing, failed or left out, of the study and of the report."""
    notes = (*context.study.notes, *context.remarks)
    return Bullets(notes) if notes else "Nothing: every run of the study is finished and its record is whole."


def repeat_section(context: Context) -> list:
    """The command, the versions, the run ids."""
    study = context.study
    folded = len(study.folds) > 1
    ids = tuple(
        f"{phrases.code(m.label)}: "
        + ", ".join(f"seed {r.seed}{f' fold {r.fold}' * folded} {phrases.code(r.record.id)}" for r in m.runs)
        for m in study.methods
    )
    environment = describe.environment(study)
    cost = describe.cost(study)
    return [
        Code(study.command) if study.command else None,
        _listing(environment, "environment", "Versions and hardware") if environment else None,
        TableBlock(cost, "cost", "Speed and duration") if cost else None,
        "Runs in the ledger:",
        Bullets(ids),
    ]


SECTIONS: tuple[Section, ...] = (
    Section("answer", "Answer", answer_section),
    Section("minority", "Gains on minority classes", lambda context: minority.build(context.numbers)),
    Section("recall", "Recall for every class", recall_section),
    Section("scores", "Overall scores", scores_section),
    Section("priors", "Under other test priors", prior_section),
    Section("frequency", "Recall against class frequency", frequency_section),
    Section("further", "Further scores", lambda c: further.further_section(c.numbers, c.results), slow=True),
    Section("calibration", "Calibration", lambda c: further.calibration_section(c.numbers, c.results), slow=True),
    Section("leak", "Honest against oracle", leak_section),
    Section("claims", "Beside published numbers", lambda context: published_claims.build(context.numbers)),
    Section("tests", "Further tests", lambda context: significance.build(context.numbers)),
    Section("confusion", "Confusion matrices", confusion_section),
    Section("curves", "Learning curves", curves_section),
    Section("compared", "What was compared", compared_section),
    Section("trust", "Seal and probe", trust_section),
    Section("missing", "What is missing or failed", missing_section),
    Section("repeat", "How to repeat this", repeat_section),
)


def all_sections(extra: Iterable[Section] = ()) -> tuple[list[Section], list[str]]:
    """Built-in sections, those of installed packages and `extra`, in their order; and remarks on broken ones.

    Raises
    ------
    PluginError
        Two sections share a name.
    """
    found, remarks = _installed()
    ordered: list[Section] = []
    for section in (*SECTIONS, *found, *extra):
        names = [s.name for s in ordered]
        if section.name in names:
            other = ordered[names.index(section.name)]
            raise PluginError(
                f"two sections of the report are called '{section.name}'",
                where=f"{other.origin or 'built in'} and {section.origin or 'given'}",
                hint="rename one of them, or uninstall the package that brings it",
            )
        place = len(ordered)
        if section.after in names:
            place = names.index(section.after) + 1
            while place < len(ordered) and ordered[place].after == section.after:
                place += 1
        elif section.after:
            remarks.append(f"The section `{section.name}` stands last: there is none called `{section.after}`.")
        ordered.insert(place, section)
    return ordered, remarks


def _installed() -> tuple[list[Section], list[str]]:
    """Sections of installed packages, and a sentence on each that can't be loaded."""
    found: list[Section] = []
    remarks: list[str] = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        try:
            found += _load(point)
        except Exception as error:  # whatever a stranger's module raises costs its own section only
            why = error.what if isinstance(error, FerBenchError) else f"{type(error).__name__}: {error}"
            remarks.append(f"The report section `{point.name}` of `{point.value}` is broken and left out: {why}.")
    return found, remarks


def _load(point: EntryPoint) -> list[Section]:
    loaded = point.load()
    sections = list(loaded) if isinstance(loaded, (list, tuple)) else [loaded]
    for section in sections:
        if not isinstance(section, Section):
            raise PluginError(f"it holds {type(section).__name__}, not a Section")
    return [dataclasses.replace(s, origin=f"entry point {point.value}") for s in sections]


def document(
    context: Context, sections: Sequence[Section] = SECTIONS, drawn: Callable[[Figure], None] = lambda figure: None
) -> Document:
    """Build the sections and put them together; names of tables and figures are made unique.

    `drawn` is called with each figure as soon as it is drawn and named.
    """
    study = context.study
    split = f" under `{study.protocol.get('name', '')}`" if study.protocol.get("name") else ""
    used = phrases.count(len(study.runs), "usable run")
    intro: list[Block] = [
        Paragraph(f"{phrases.count(len(study.methods), 'method')}, {used} on {study.dataset}{split}.")
    ]
    intro += blocks.blocks(describe.tuned_sentence(study))
    if study.watermarks:
        intro.append(Notice(f"**Watermarked: not a fair estimate.** {'; '.join(study.watermarks)}"))
    if folds := answer.missing_folds(study):
        intro.append(Notice(folds))
    taken = {"main"}  # the file that joins the others
    parts: dict[str, Part] = {}
    notes = answer.all_footnotes(context.numbers)
    for section in sorted(sections, key=lambda s: s.slow):
        built = blocks.footnoted((_renamed(block, taken) for block in _built(section, context)), notes)
        for block in built:
            if isinstance(block, Figure):
                drawn(block)
        if built:
            parts[section.name] = Part(marks.slug(section.name), section.title, built)
    return Document(study.name, tuple(intro), tuple(parts[s.name] for s in sections if s.name in parts), _origin(study))


def _origin(study: StudyData) -> tuple[str, ...]:
    """What the numbers were computed from, for the head of a file that may travel alone."""
    return (
        f"study {study.name}: {study.command}".removesuffix(": "),
        f"data {study.dataset}, fingerprint {study.fingerprint}",
        *(f"{m.label}: runs {', '.join(r.record.id for r in m.runs)}" for m in study.methods),
        *(marks.plain(f"⚠ {reason}") for reason in study.watermarks),
        *(marks.plain(note) for note in study.notes),
    )


def _built(section: Section, context: Context) -> tuple[Block, ...]:
    try:
        return blocks.blocks(section.build(context))
    except FerBenchError as error:
        why = error.what
    except Exception as error:
        if not section.origin:
            raise
        why = f"{section.origin} raised {type(error).__name__}: {error}"
    return (Paragraph(f"This section could not be built: {why}."),)


def _renamed(block: Block, taken: set[str]) -> Block:
    """The block under a name that no table or figure before it has."""
    if not isinstance(block, (TableBlock, Figure)):
        return block
    name = wanted = marks.slug(block.id if isinstance(block, TableBlock) else block.name)
    kind = type(block).__name__
    number = 1
    while name in taken or f"{kind} {name}" in taken:
        number += 1
        name = f"{wanted}-{number}"
    taken.add(f"{kind} {name}")
    if isinstance(block, TableBlock):
        return dataclasses.replace(block, id=name)
    return dataclasses.replace(block, name=name)
