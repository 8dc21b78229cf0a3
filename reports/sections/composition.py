"""A report put together from its sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from fer_bench.errors import FerBenchError
from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.render import blocks, marks
from fer_bench.reports.render.blocks import Block, Document, Figure, Notice, Paragraph, Part, TableBlock
from fer_bench.reports.sections.registry import SECTIONS
from fer_bench.reports.sections.search import tuned_sentence
from fer_bench.reports.sections.section import Context, Section


def document(
    context: Context, sections: Sequence[Section] = SECTIONS, drawn: Callable[[Figure], None] = lambda figure: None
) -> Document:
    """Build the sections and put them together; names of tables and figures are made unique.

    `drawn` is called with each figure once it is drawn and has its name.
    """
    study = context.study
    split = f" under `{study.protocol.get('name', '')}`" if study.protocol.get("name") else ""
    used = phrases.count(len(study.runs), "usable run")
    intro: list[Block] = [
        Paragraph(f"{phrases.count(len(study.methods), 'method')}, {used} on {study.dataset}{split}.")
    ]
    intro += blocks.blocks(tuned_sentence(study))
    intro += context.links
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
