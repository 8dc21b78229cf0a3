"""The tables of a report in the terminal, by rich."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from fer_bench.printable import printable
from fer_bench.record.ledger import Ledger
from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.numbers import Numbers, compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.marks import spans
from fer_bench.reports.render.table import Table
from fer_bench.reports.sections.overall import score_table
from fer_bench.reports.sections.recall import gain_table, recall_table

MOST_WIDE = 5  # columns up to which a terminal of 100 characters has room for intervals


def plain(text: str, style: str = "") -> Text:
    """Marked text for the terminal; bold is kept."""
    out = Text(style=style)
    for span in spans(printable(text)):
        out.append(span.text, "bold" if span.bold else "")
    return out


def rich_table(table: Table, title: str, *, stacked: bool = False) -> RichTable:
    """A table for the terminal; with `stacked` or many columns, intervals go below their values."""
    stacked = stacked or len(table.titles) > MOST_WIDE
    out = RichTable(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, right in zip(table.titles, table.right, strict=True):
        out.add_column(plain(name), justify="right" if right else "left", no_wrap=not right, overflow="fold")
    for row in table.rows:
        out.add_row(*(plain(cell.replace(" [", "\n[", 1) if stacked else cell) for cell in row))
    return out


def render(numbers: Numbers) -> RenderableType:
    """Answer, recall of every class, gains, scores, and what is missing."""
    study = numbers.study
    parts: list[RenderableType] = [Text(f"{study.name} · {study.protocol.get('name') or study.dataset}", "bold")]
    parts += [plain(f"⚠ Watermarked, not a fair estimate: {reason}", "yellow") for reason in study.watermarks]
    if folds := answer.missing_folds(study):
        parts.append(plain(folds, "yellow"))
    parts.append(plain(answer.summary(numbers)))
    lines = [*(answer.headline(numbers, m) for m in numbers.compared), *answer.no_classifiers(numbers)]
    parts += [Padding(plain("- " + line), (0, 0, 0, 2)) for line in lines]
    parts += [plain(line) for line in answer.cautions(numbers)]
    parts += [plain(line) for line in (answer.detectable_in_words(numbers), answer.family_in_words(numbers)) if line]
    parts.append(plain(phrases.conditions(study)))
    parts += ["", rich_table(recall_table(numbers), "Recall, % [95 %]")]
    gains = gain_table(numbers)
    if gains is not None:
        parts.append(rich_table(gains, f"Gain over {study.reference}, points [95 %]"))
    parts.append(
        rich_table(score_table(numbers), f"Overall, %: mean ± sd over {phrases.varied(study)} [95 %]", stacked=True)
    )
    parts += [plain(note, "yellow") for note in answer.all_footnotes(numbers).values()]
    parts += [plain(f"! {note}", "yellow") for note in study.notes]
    return Group(*parts)


def study_table(ledger: Ledger, study: Mapping[str, Any] | str) -> RenderableType:
    """The study's numbers, ready for ``rich.print``; the same as in ``report.md``.

    Raises
    ------
    LedgerError
        No run of the study can be reported.
    """
    return render(compute(load_study(ledger, study)))
