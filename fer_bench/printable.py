"""Make text from data sets, records and file names safe to print.

Terminals execute escape sequences, editors reorder text that contains direction marks, and spreadsheets evaluate cells
that begin with "=". The name of a class, a label or a file must not trigger any of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Control characters except tab and line feed, marks that change the direction of text, line separators, lone surrogates
# (from file names that are not UTF-8), and characters that XML forbids.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(
    r"[+-](?=[\d.])(?:[\d.,;:%()\[\]\s+±–/-]|\bto\b|(?<=\d)e[+-]?\d)*"
)  # "-0.7 [-1.0, +0.2]" is not a formula


def printable(text: str) -> str:
    r"""The text with unsafe characters written as escapes, such as ``\x1b``."""
    return UNSAFE.sub(lambda m: m[0].encode("unicode_escape", "surrogatepass").decode(), text)


def printable_data(value: Any) -> Any:
    """JSON data with :func:`printable` applied to every text in it, including keys."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [printable_data(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable_data(item) for key, item in value.items()}
    return value


def csv_cell(text: str) -> str:
    """A cell of a CSV file: an apostrophe is put before anything a spreadsheet would evaluate, except numbers."""
    text = printable(text)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def csv_cells(row: Iterable[Any]) -> list[str]:
    """A row of a CSV file."""
    return [csv_cell(str(item)) for item in row]
