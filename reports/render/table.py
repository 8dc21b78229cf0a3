"""Tables of text cells, which every format renders, and their CSV files.

A table is a tuple of columns applied to a list of rows. Cells are marked text (:mod:`.marks`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fer_bench.printable import csv_cells
from fer_bench.reports.render.marks import plain


@dataclass(frozen=True)
class Column:
    """A column: its title, and the function that gives the cell of a row."""

    title: str
    cell: Callable[[Any], str]
    right: bool = True


@dataclass(frozen=True)
class Table:
    """Titles, alignments and cells; the caption says what the numbers are."""

    titles: tuple[str, ...]
    right: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def tabulate(columns: Sequence[Column], rows: Iterable[Any], caption: str = "") -> Table:
    """Apply `columns` to `rows`."""
    cells = tuple(tuple(c.cell(row) for c in columns) for row in rows)
    return Table(tuple(c.title for c in columns), tuple(c.right for c in columns), cells, caption)


def pairs(items: Iterable[tuple[str, str]], titles: tuple[str, str] = ("What", "Value")) -> Table:
    """A table of names and values."""
    return Table(titles, (False, False), tuple(items))


def each(cell: Callable[[Any, Any], str], of: Any) -> Callable[[Any], str]:
    """The cells of a column that belongs to `of`: row -> cell(of, row)."""
    return partial(cell, of)


def rows_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV, in which a spreadsheet takes no cell for a formula (:func:`fer_bench.printable.csv_cell`)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(csv_cells, rows))
    return text.getvalue()


def table_csv(table: Table) -> str:
    """A table as a page shows it, without marks, and with the minus sign that programs read."""
    return rows_csv([plain(cell).replace("−", "-") for cell in row] for row in (table.titles, *table.rows))
