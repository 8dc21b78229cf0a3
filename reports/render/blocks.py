"""A report as plain data: sections of blocks, which Markdown, HTML and LaTeX each turn into text.

Running text and the cells of tables are marked text (:mod:`.marks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from fer_bench.reports.render.table import Table


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Running text that no reader should miss."""

    text: str


@dataclass(frozen=True)
class Link:
    """A link to a page beside this one: to ``<page>.md`` in Markdown and to ``<page>.html`` in HTML."""

    text: str
    page: str


@dataclass(frozen=True)
class Bullets:
    """A bulleted list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Outline:
    """A bulleted list, each item with any number of details below it."""

    items: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Code:
    """Lines to be shown, or typed, verbatim."""

    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Figure:
    """A drawing of matplotlib, kept as ``figures/<name>.svg`` and ``.png``; `alt` says what it shows."""

    name: str
    alt: str
    drawn: Any


@dataclass(frozen=True)
class Picture:
    """A bitmap, kept as ``figures/<name>.png``; `alt` describes it to those who can't see it."""

    name: str
    alt: str


@dataclass(frozen=True)
class TableBlock:
    """A table.

    `id` names its file and its anchor; `title` says in a few words what it holds, in case there is no caption. The last
    `footer` rows are sums or means of the others and stay below them. A table of names and values is not `sortable`.
    In a `stacked` one, which would otherwise be too wide for a page, intervals stand below their values.
    """

    table: Table
    id: str
    title: str
    footer: int = 0
    sortable: bool = True
    stacked: bool = False

    @property
    def parts(self) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
        """Rows above and rows of the footer."""
        cut = len(self.table.rows) - self.footer
        return self.table.rows[:cut], self.table.rows[cut:]


Block: TypeAlias = Paragraph | Notice | Link | Bullets | Outline | Code | Figure | Picture | TableBlock


@dataclass(frozen=True)
class Part:
    """A section that has been built: the name of its anchor, its heading and its blocks."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report, ready to be rendered; `origin` has lines on what it was made from."""

    title: str
    intro: tuple[Block, ...]
    parts: tuple[Part, ...]
    origin: tuple[str, ...] = ()

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks in their order."""
        yield from self.intro
        for part in self.parts:
            yield from part.blocks

    @property
    def tables(self) -> list[TableBlock]:
        """All tables in their order."""
        return [b for b in self.blocks if isinstance(b, TableBlock)]

    @property
    def figures(self) -> list[Figure]:
        """All figures in their order."""
        return [b for b in self.blocks if isinstance(b, Figure)]


def blocks(content: Any) -> tuple[Block, ...]:
    """What a section returned, as blocks: text is a paragraph; None, "" and an empty list of bullets are left out.

    Raises
    ------
    TypeError
        An item is neither a block nor text.
    """
    items: Iterable[Any] = content if isinstance(content, (list, tuple)) else [content]
    out: list[Block] = []
    for item in items:
        block = Paragraph(item.strip()) if isinstance(item, str) else item
        if block is None or block == Paragraph("") or block == Bullets(()):
            continue
        if not isinstance(block, Block):
            raise TypeError(f"{item!r} is not a block of a report")
        out.append(block)
    return tuple(out)


def footnoted(content: Iterable[Block], notes: Mapping[str, str]) -> tuple[Block, ...]:
    """The blocks, with a note below each table that has its sign beside a method; `notes` are by sign."""
    return tuple(_footnoted(b, notes) if isinstance(b, TableBlock) else b for b in content)


def _footnoted(block: TableBlock, notes: Mapping[str, str]) -> TableBlock:
    table = block.table
    cells = [*table.titles, *(cell for row in table.rows for cell in row)]
    wanted = [note for sign, note in notes.items() if any(f"` {sign}" in c or f"⚠ {sign}" in c for c in cells)]
    return replace(block, table=replace(table, caption=" ".join([table.caption, *wanted]).strip())) if wanted else block
