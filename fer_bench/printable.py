"""Text from data sets, records and file names, made harmless where people look at it.

A terminal obeys escape sequences, an editor shows text in another order than it has, a spreadsheet computes what begins
with =. None of them should do so because of the name of a class, a label or a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Control characters but tab and line feed, marks that turn the direction of text, separators of lines, halves of
# characters (from file names that are no UTF-8), and what XML forbids.
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(
    r"[+-](?=[\d.])(?:[\d.,;:%()\[\]\s+±–/-]|\bto\b|(?<=\d)e[+-]?\d)*"
)  # "-0.7 [-1.0, +0.2]" computes nothing


def printable(text: str) -> str:
    r"""The text with everything that would be obeyed written out: an escape character as ``\x1b``."""
    return OBEYED.sub(lambda m: m[0].encode("unicode_escape", "surrogatepass").decode(), text)


def printable_data(value: Any) -> Any:
    """JSON's data with every text in it, keys included, as :func:`printable` gives it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [printable_data(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable_data(item) for key, item in value.items()}
    return value


def csv_cell(text: str) -> str:
    """A cell of a CSV file: what a spreadsheet would take for a formula begins with an apostrophe; numbers stay."""
    text = printable(text)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def csv_cells(row: Iterable[Any]) -> list[str]:
    """A row of a CSV file."""
    return [csv_cell(str(item)) for item in row]
