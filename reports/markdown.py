"""The Markdown report: an ordered list of sections, each a function from :class:`Context` to text.

A plug-in adds a section by adding a :class:`Section` to :data:`SECTIONS`. The page depends on the ledger alone:
building it twice gives the same bytes, figures included.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_bench.atomic import write_text
from fer_bench.errors import FerBenchError
from fer_bench.ledger import Ledger
from fer_bench.reports import describe, figures, tables, words
from fer_bench.reports.numbers import MIN_SEEDS, Numbers, compute
from fer_bench.reports.priors import Prior, prior_table
from fer_bench.reports.records import StudyData, load_study
from fer_bench.reports.tables import Table


@dataclass(frozen=True)
class Context:
    """What a section may read: the study, its numbers, the folder for figures, and the test priors asked for."""

    study: StudyData
    numbers: Numbers
    out: Path
    priors: tuple[Prior, ...] = ()

    def figure(self, name: str, draw: Callable[[Numbers], Any], alt: str) -> str:
        """Draw ``figures/<name>.svg`` and ``.png``; returns the line that shows it, "" where there is nothing."""
        drawn = draw(self.numbers)
        if drawn is None:
            return ""
        figures.save(drawn, self.out / "figures", name)
        return f"![{alt}](figures/{name}.svg)"


@dataclass(frozen=True)
class Section:
    """One section of the report; `build` returns Markdown without a heading, or "" to be left out."""

    name: str
    title: str
    build: Callable[[Context], str]


def table_markdown(table: Table) -> str:
    """A GitHub-flavoured table."""
    lines = [_line(table.titles), _line(["---:" if right else "---" for right in table.right])]
    return "\n".join([*lines, *(_line(row) for row in table.rows)])


def _line(cells: Any) -> str:
    return "| " + " | ".join(" ".join(str(c).split()).replace("|", "\\|") for c in cells) + " |"


def with_caption(table: Table) -> str:
    """The table with its caption below."""
    return table_markdown(table) + (f"\n\n{table.caption}" if table.caption else "")


def bullets(lines: list[str]) -> str:
    """A bulleted list."""
    return "\n".join(f"- {line}" for line in lines)


def join(*parts: str | None) -> str:
    """Paragraphs, leaving out the empty ones."""
    return "\n\n".join(p for p in parts if p)


def answer_section(context: Context) -> str:
    """Summary, one line a method, and what a reader must keep in mind."""
    study, numbers = context.study, context.numbers
    lines = [words.headline(numbers, m) for m in numbers.compared]
    few = bool(lines) and max(m.pairs for m in numbers.compared) < MIN_SEEDS
    one = "With one seed the intervals cover the sampling of test images only, not the spread between trainings. "
    warning = one if few and max(m.pairs for m in numbers.compared) == 1 else ""
    caution = f"{warning}A gain is claimed only from {MIN_SEEDS} shared seeds on." if few else ""
    remarks = words.count(len(study.notes), "remark")
    left_out = f"{remarks} on missing or unusable records: see below." if study.notes else ""
    return join(words.summary(numbers), bullets(lines), caution, left_out)


def recall_section(context: Context) -> str:
    """Recall of every class and the gains over the reference."""
    gains = tables.gain_table(context.numbers)
    return join(
        with_caption(tables.recall_table(context.numbers)),
        context.figure("recall", figures.recall, "Recall of every class and method with Wilson intervals"),
        with_caption(gains) if gains else "",
        context.figure("gains", figures.gains, "Gain over the reference for every class, with intervals"),
    )


def scores_section(context: Context) -> str:
    """Accuracy, mean-class accuracy, macro-F1; pooled over folds and by fold, where there are several."""
    folds = tables.fold_table(context.numbers)
    return join(with_caption(tables.score_table(context.numbers)), with_caption(folds) if folds else "")


def prior_section(context: Context) -> str:
    """Accuracy under the test priors that were asked for."""
    if not context.priors:
        return ""
    return with_caption(prior_table(context.numbers, context.priors))


def frequency_section(context: Context) -> str:
    """Recall against the number of training images."""
    return context.figure("frequency", figures.frequency, "Recall against the number of training images of the class")


def leak_section(context: Context) -> str:
    """The honest number beside the oracle's."""
    table = tables.leak_table(context.numbers)
    return with_caption(table) if table else "No run kept its per-epoch test predictions, so the oracle is not known."


def confusion_section(context: Context) -> str:
    """Confusion matrices as a figure and as tables."""
    parts = [context.figure("confusion", figures.confusion, "Row-normalised confusion matrices")]
    for method in context.numbers.methods:
        parts.append(f"{tables.title(method)}, rows in %, mean over seeds:")
        parts.append(table_markdown(tables.confusion_table(context.numbers, method)))
    return join(*parts)


def curves_section(context: Context) -> str:
    """Learning curves on the validation set."""
    shown = context.figure("curves", figures.curves, "Training loss and validation mean-class accuracy by epoch")
    return shown or "No run kept its history."


def compared_section(context: Context) -> str:
    """Everything that is shared by all runs, what differs, the methods and the data."""
    study = context.study
    shared, differing = describe.settings(study)
    different = ""
    if differing is not None:
        different = join("What differs between the methods:", table_markdown(differing))
    deviations = [f"{words.code(m.label)}: {d}" for m in study.methods for d in m.card.get("deviations") or ()]
    return join(
        table_markdown(shared),
        different or "All methods share every setting above; they differ in the method alone.",
        table_markdown(tables.method_table(study)),
        join("Deviations from the papers:", bullets(deviations)) if deviations else "",
        "Images by class:",
        table_markdown(tables.counts_table(study)),
    )


def trust_section(context: Context) -> str:
    """How often the test was opened, and the probe for predictions that depend on the batch."""
    study = context.study
    lines = [
        f"{r.name} opened its test set {int(r.facts['seal'].get('count', 0))} times."
        for r in study.runs
        if r.facts.get("seal") and int(r.facts["seal"].get("count", 0)) != 1
    ]
    why = "The probe predicts validation images alone, in batches of other sizes and in other orders."
    return join(table_markdown(tables.seal_table(study)), why, bullets(lines))


def missing_section(context: Context) -> str:
    """What is missing, failed or left out."""
    return bullets(list(context.study.notes)) or "Nothing: every run of the study is finished and sound."


def repeat_section(context: Context) -> str:
    """The command, the versions, the run ids."""
    study = context.study
    folded = len(study.folds) > 1
    ids = [
        f"{words.code(m.label)}: "
        + ", ".join(f"seed {r.seed}{f' fold {r.fold}' * folded} {words.code(r.record.id)}" for r in m.runs)
        for m in study.methods
    ]
    environment = describe.environment(study)
    cost = describe.cost(study)
    return join(
        f"```sh\n{study.command}\n```" if study.command else "",
        table_markdown(environment) if environment else "",
        with_caption(cost) if cost else "",
        "Runs in the ledger:",
        bullets(ids),
    )


SECTIONS: list[Section] = [
    Section("answer", "Answer", answer_section),
    Section("recall", "Recall for every class", recall_section),
    Section("scores", "Overall scores", scores_section),
    Section("priors", "Under other test priors", prior_section),
    Section("frequency", "Recall against class frequency", frequency_section),
    Section("leak", "Honest against oracle", leak_section),
    Section("confusion", "Confusion matrices", confusion_section),
    Section("curves", "Learning curves", curves_section),
    Section("compared", "What was compared", compared_section),
    Section("trust", "Seal and probe", trust_section),
    Section("missing", "What is missing or failed", missing_section),
    Section("repeat", "How to repeat this", repeat_section),
]


def page(context: Context, sections: list[Section] | None = None) -> str:
    """The whole report as Markdown."""
    study = context.study
    split = f" under `{study.protocol.get('name', '')}`" if study.protocol.get("name") else ""
    parts = [f"# {study.name}", f"{_method_count(study)} on {study.dataset}{split}."]
    if study.watermarks:
        parts.append(f"> ⚠ **Watermarked: not a fair estimate.** {'; '.join(study.watermarks)}")
    for section in SECTIONS if sections is None else sections:
        body = _built(section, context)
        if body:
            parts.append(f"## {section.title}\n\n{body}")
    text = "\n\n".join(parts) + "\n"
    return re.sub(r"[ \t]+$", "", re.sub(r"\n{3,}", "\n\n", text), flags=re.MULTILINE)


def _method_count(study: StudyData) -> str:
    runs = words.count(len(study.runs), "usable run")
    return f"{words.count(len(study.methods), 'method')}, {runs}"


def _built(section: Section, context: Context) -> str:
    try:
        return section.build(context).strip()
    except FerBenchError as error:
        return f"This section could not be built: {error.what}."


def build_report(ledger: Ledger, study: Mapping[str, Any], out: Path, *, priors: Sequence[Prior] = ()) -> Path:
    """Write ``report.md``, ``table.csv`` and ``figures/`` into `out`; returns the path of ``report.md``.

    `priors` adds a section on the accuracy under other class shares than the test's.

    Raises
    ------
    LedgerError
        No run of the study can be reported.
    """
    data = load_study(ledger, study)
    numbers = compute(data)
    shutil.rmtree(out / "figures", ignore_errors=True)
    write_text(out / "table.csv", tables.csv_text(numbers))
    path = out / "report.md"
    write_text(path, page(Context(data, numbers, out, tuple(priors))))
    return path
