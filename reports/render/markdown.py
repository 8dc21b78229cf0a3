"""A report as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fer_bench.reports.render.blocks import (
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    Link,
    Notice,
    Outline,
    Picture,
    TableBlock,
)
from fer_bench.reports.render.table import Table


def page(document: Document) -> str:
    """The whole report."""
    parts = [f"# {document.title}", *map(block_markdown, document.intro)]
    for part in document.parts:
        parts += [f"## {part.title}", *map(block_markdown, part.blocks)]
    return re.sub(r"[ \t]+$", "", "\n\n".join(parts) + "\n", flags=re.MULTILINE)


def block_markdown(block: Block) -> str:
    """One block, without blank lines around it."""
    match block:
        case TableBlock(table):
            return table_markdown(table) + (f"\n\n{safe(table.caption)}" if table.caption else "")
        case Bullets(items):
            return "\n".join(f"- {safe(item)}" for item in items)
        case Outline(items):
            return "\n".join("\n".join([f"- {safe(item)}", *(f"  - {safe(x)}" for x in more)]) for item, more in items)
        case Figure(name, alt):
            return f"![{alt}](figures/{name}.svg)"
        case Picture(name, alt):
            return f"![{alt}](figures/{name}.png)"
        case Code(text, language):
            return f"```{language}\n{text}\n```"
        case Link(text, page):
            return f"[{safe(text)}]({page}.md)"
        case Notice(text):
            return f"> ⚠ {safe(text)}"
    return safe(block.text)


def table_markdown(table: Table) -> str:
    """A table without its caption."""
    lines = [_line(table.titles), _line(["---:" if right else "---" for right in table.right])]
    return "\n".join([*lines, *(_line(row) for row in table.rows)])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(safe(cell).replace("|", "\\|") for cell in cells) + " |"


def safe(text: str) -> str:
    """Text on one line in which nothing is taken for HTML; code and the marks of :mod:`.marks` stay."""
    line = " ".join(text.split())
    return re.sub(r"(`[^`]+`)|(<|&(?=#?\w+;))", lambda m: m[1] or "\\" + m[2], line)
