"""Marked text: strings with four marks, a part of Markdown, for running text and the cells of tables.

The marks are ```code```, ``**bold**``, ``*italic*`` and ``[text](url)``. A mark that is not closed is a character like
any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MARKS = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|\[(?P<label>[^\[\]]+)\]\((?P<url>(?:[^()\s]|\([^()\s]*\))+)\)"
    r"|\*\*(?P<bold>(?:`[^`]*`|[^`])+?)\*\*"
    r"|\*(?P<italic>[^\s*](?:[^*]*[^\s*])?)\*"
)


@dataclass(frozen=True)
class Span:
    """A piece of text in one style; `url` is empty where it is not a link."""

    text: str
    code: bool = False
    bold: bool = False
    italic: bool = False
    url: str = ""


def spans(text: str) -> list[Span]:
    """Split marked text into pieces of one style each."""
    out: list[Span] = []
    end = 0
    for mark in MARKS.finditer(text):
        out += [Span(text[end : mark.start()])] * (mark.start() > end)
        out += _marked(mark)
        end = mark.end()
    return out + [Span(text[end:])] * (end < len(text))


def _marked(mark: re.Match[str]) -> list[Span]:
    kind = mark.lastgroup
    if kind == "code":
        return [Span(mark["code"], code=True)]
    if kind == "bold":
        return [replace(s, bold=True) for s in spans(mark["bold"])]
    if kind == "italic":
        return [replace(s, italic=True) for s in spans(mark["italic"])]
    return [replace(s, url=mark["url"]) for s in spans(mark["label"])]


def plain(text: str) -> str:
    """Marked text without its marks."""
    return "".join(s.text for s in spans(text))


def slug(text: str) -> str:
    """A name for a file, an anchor or a label: at most 80 lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", plain(text).lower())[:80].strip("-") or "x"
